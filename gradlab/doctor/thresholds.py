"""The doctor's thresholds, all ours. Nats, unless said otherwise."""

# Spikes of the validation loss.
SPIKE_MULTIPLE = 20.0  # a spike is at least so many usual changes: 6 standard deviations, if changes are normal
SPIKE_FLOOR = 0.1  # and at least this: a seventh of ln 2, which no single evaluation should cost
SPIKE_SUDDEN = 3.0  # and so many times the rise just before it: what grows by degrees is no spike
SPIKE_USUAL = 0.25  # the usual change is this quantile of |changes|: a run may spike often, and still be caught
SPIKE_EVALUATIONS = 6  # fewer show no usual change

# λ_w at an end of its range.
EDGE = 0.02  # λ is at an end of its range within this share of the range
EDGE_PAIRS = 0.55  # and it is worth saying where so many pairs are: the median's half and a tail at the other end
EDGE_MOST = 0.9  # so many at one end count as nearly all; without quantiles, a mean at the end counts as this share

# A loss that stays where it starts, and where it should start.
STUCK = 0.007  # share of the starting value; 0.005 at ln 2, where bfloat16 rounds to 0.0017
STUCK_ROWS = 10  # fewer rows do not show that the loss stays where it is
START_WARNING, START_PROBLEM = 0.07, 0.3  # share of the starting value: 0.05 and 0.2 at ln 2; rounding stays below
NEGATIVE = 1e-3  # a mean loss below minus this is negative: far beyond the rounding of bfloat16 near 0
REWARD_WARNING, REWARD_PROBLEM = 0.1, 0.5  # |reward| at the first step: dropout can do the first, hardly the second

# Log-probabilities that fall, per response: means over tokens are first multiplied by the mean length.
FALL = 1.0  # a fall of log π that counts: a factor e
FALL_REWARD = 0.1  # the same in rewards where β is not known: TRL's β is 0.1
DEEP_FALL = 0.1  # share of |log π of the winners|: from here on the text they stand for changes visibly
FALL_ERRORS = 3.0  # standard errors: log-probabilities vary from batch to batch with the length of the responses

DISPLACED = 0.5  # share of the compared steps below the band from which the losers' side counts as the cause

# Gain on held-out pairs, and its loss.
GAIN_ACCURACY = 0.02  # an accuracy is above another from here on, or from 2 standard errors if those are larger
SEEN = 0.1  # so many of the held-out pairs have prompts that are trained on too: their accuracy says little
GAIN_LOSS = 0.01  # a loss is below another from here on: a 70th of ln 2
OVERFIT = 0.02  # rise of the validation loss from its best, and fall of the training loss since: a 35th of ln 2
OVERFIT_CHANGES = 3.0  # and so many usual changes: the best of many noisy values is too good
OVERFIT_EVALUATIONS = 5  # with fewer, the best is likely the first or the last

# Sampled responses, as PPO trains on them.
FINISHED = 0.05  # a share of finished responses below this says that the end is not found, not that texts are long
FINISHED_FALL = 0.5  # so small a part of the share at the start: the training has unlearned the end, or learnt length
ALIKE, ALL_ALIKE = 0.5, 0.95  # so many prompts whose responses all have one reward: half of the samples are wasted
KL_RISE = 1.0  # a rise of KL that counts: a factor e
KL_PER_TOKEN = 0.5  # KL per token of a response that is far: its tokens are then e^0.5 times as likely on average
KL_NEGATIVE = 0.1  # a mean of log π/π_ref below minus this is no rounding
ENTROPY_LOW, ENTROPY_LOWEST = 0.3, 0.1  # share of the entropy at the start: sharper than tuning makes texts; one text
CHANGE_ERRORS = 3.0  # standard errors by which the means of two parts of a log differ

# How much of a log a judgement needs.
TRAINED = 30  # steps; before that, a warm-up alone looks like a loss that is stuck, or like no gain
LATE = 3  # evaluations by which the end is judged
ROWS = 5  # rows that a start and an end need
