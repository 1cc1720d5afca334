"""The part that algebra settles: theorems with short proofs, and counterexamples, as data for the claims and the pages.

No number here is measured. Each proof names the test in ``tests/test_proofs.py`` that checks it on random cases.
``SETTING`` says what p, q and w mean. Source: proofs ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Proof:
    """A theorem, why it is true, and the test that could refute it.

    name     in lower case, with hyphens; claims refer to it.
    theorem  one sentence with its conditions.
    proof    Markdown, short enough that a reader can check each step.
    test     the test in ``tests/test_proofs.py`` that checks the theorem numerically.
    """

    name: str
    theorem: str
    proof: str
    test: str


SETTING = (
    "Every ordered pair of responses is drawn equally often, with both label orders, exact Bradley–Terry labels of a "
    "preference q > 0, and a uniform reference. A step of DPO raises log p_i of the policy p > 0 where its weight "
    "w_i = Σ_j [q_i/(q_i + q_j) − p_i/(p_i + p_j)] is positive (β = 1). In the continuum y lies on an interval, and "
    "w(y) = E_t[σ(log q(y) − log q(t)) − σ(β (log p(y) − log p(t)))], with t uniform. The two orders of a pair cancel, "
    "so the weights sum to 0. The modes are μ_p < μ_q; for μ_p > μ_q everything is mirrored. Unimodal means rising up "
    "to the mode and falling after it."
)

_RATIO = (
    Proof(
        "ratio",
        "For every loss of a pair |∂L/∂π_w| : |∂L/∂π_l| = ρ π_l/π_w, where ρ is the ratio of the derivatives in log π, "
        "and ρ = 1 for every loss that sees the policy only through log π_w − log π_l, as DPO does; the loser's "
        "derivative is then the larger one exactly where π_w > π_l.",
        "By the chain rule ∂L/∂π = (∂L/∂log π)/π on each side, and dividing the sides gives ρ π_l/π_w. If L = f(log "
        "π_w − log π_l), then ∂L/∂log π_w = f′ and ∂L/∂log π_l = −f′: ρ = 1, and with its sign the ratio is −π_l/π_w. "
        "Only this form of DPO was used, so cDPO, robust DPO, IPO and hinge losses have the same ratio.",
        "test_every_margin_loss_has_the_ratio_of_the_chain_rule",
    ),
    Proof(
        "ratio-step",
        "In a small step of gradient descent on one pair with one free logit per response, DPO raises π_w by more than "
        "it lowers π_l exactly where π_w > π_l, if other responses have any probability.",
        "DPO moves the winner's logit by s > 0 and the loser's by −s. Since Δπ_i = π_i (Δz_i − Σ_j π_j Δz_j) to first "
        "order, Δπ_w = s π_w (1 − π_w + π_l) and Δπ_l = −s π_l (1 + π_w − π_l). Their sum is s (π_w − π_l)(1 − π_w − "
        "π_l). So the larger derivative by π_l does not mean a larger change of π_l.",
        "test_in_a_step_the_likelier_side_moves_more",
    ),
    Proof(
        "log-ratio",
        "Logged as derivatives in π, the ratio of every loss obeys log(|∂L/∂π_w| : |∂L/∂π_l|) = log(π_l/π_w) + log ρ, "
        "with log ρ = 0 for DPO, in every pair and at every step.",
        "This is the theorem on the ratio, in logarithms. So the ratio that DPO logs follows π_l/π_w by definition, "
        "with slope 1 and correlation 1, whatever the training does. Gradients with respect to parameters and realised "
        "steps are other quantities; about them this says nothing.",
        "test_the_logged_ratio_of_a_training_follows_by_algebra",
    ),
    Proof(
        "ratio-corrected",
        "For Balanced-DPO, log(|∂L/∂π_w| : |∂L/∂π_l|) = log(π_l/π_w) · (1 − 1/LM), where LM is the logarithmic mean of "
        "−log π_w and −log π_l: the share 1 − |1 − 1/LM| of DPO's imbalance is corrected, and the sides are equal only "
        "where π_w = π_l or LM = 1.",
        "Balanced-DPO's λ is detached, so ρ = λ_w/λ_l = log π_l/log π_w. With a = −log π_w and b = −log π_l, its ratio "
        "is log(π_l/π_w) + log(b/a) = (a − b) − (log a − log b). The logarithmic mean is LM = (a − b)/(log a − log b), "
        "and a where a = b. Putting log a − log b = (a − b)/LM gives (a − b)(1 − 1/LM). DPO's ratio is a − b.\n\n"
        "So the share corrected is 1/LM where LM ≥ 1, and 2 − 1/LM where LM < 1: there the loss corrects too much, and "
        "the winner has the larger derivative where it is the more probable one. Since LM lies between a and b, little "
        "is corrected where both probabilities are small: of whole sequences with log π near −100, about 1%.",
        "test_the_correction_follows_the_logarithmic_mean",
    ),
    Proof(
        "ratio-nearer",
        "For two different responses to one prompt, π_w + π_l ≤ 1, with π_w ≠ π_l, Balanced-DPO's sides are always "
        "nearer to symmetry than DPO's (0 < share corrected ≤ 1); so LM ≤ ½, where the law makes it no better or "
        "worse, never occurs.",
        "Let x > y be the probabilities, and f(x) = x² log(1/x). In absolute value DPO's logarithm is D = log(x/y), "
        "and Balanced-DPO's |D − E| with E = log(log y/log x) > 0. It is smaller exactly where E < 2D, that is, f(y) < "
        "f(x). f rises up to x = e^−½, so nothing is left to show for x ≤ e^−½. For x > e^−½ put u = 1 − x, so that y "
        "≤ u < e^−½, and f(y) ≤ f(u) = u · u log(1/u) ≤ u/e, because u log(1/u) ≤ 1/e. As x² > 1/e and log(1/x) ≥ 1 − "
        "x = u, we have u/e < x² log(1/x) = f(x).",
        "test_two_responses_of_a_prompt_are_always_nearer_to_symmetry",
    ),
    Proof(
        "half-weight",
        "A constant λ = ½ on both sides is DPO at β/2, and λ_w = L_l/(L_w + L_l) for responses of L_w and L_l tokens "
        "is that λ wherever L_w = L_l, as in the lab, where each response counts one token.",
        "The margin β(λ_w h_w − (1 − λ_w) h_l) is (β/2)(h_w − h_l) at λ_w = ½, which is DPO's at β/2. L_l/(L_w + L_l) "
        "= ½ where L_w = L_l.",
        "test_a_weight_of_one_half_is_dpo_at_half_beta",
    ),
    Proof(
        "inner-product",
        "For every differentiable policy the inner products c_ij = ⟨∇π_i, ∇π_j⟩ over the full set of responses to a "
        "prompt sum to 0, so their mean over i ≠ j is negative unless every ∇π_i is 0; for cosines the mean has no "
        "fixed sign.",
        "Probabilities sum to one, so Σ_i ∇π_i = 0 and Σ_ij c_ij = ‖Σ_i ∇π_i‖² = 0. The diagonal adds Σ_i ‖∇π_i‖² ≥ 0, "
        "so the entries i ≠ j add −Σ_i ‖∇π_i‖². A part of the responses need not obey this.\n\n"
        "For cosines take one free logit per response, where ∇log π_i = e_i − π. A uniform policy has the mean "
        "−1/(n − 1). If one response has nearly all the probability and n − 1 others share the rest evenly, the cosine "
        "tends to ½ for a pair of others and to −√(n/(2(n − 1))) for a pair with the likely response, so the mean "
        "tends to (n − 2)/(2n) − √(2/(n(n − 1))), which is positive from n = 6 on.",
        "test_inner_products_sum_to_zero_and_cosines_have_no_fixed_sign",
    ),
)

_WORLD = (
    Proof(
        "free-logits",
        "With free logits and a uniform start, gradient descent on any loss of the margin log π_w − log π_l, as DPO "
        "is, never puts more mass on the responses that are in no pair than the start does, whatever the pairs and the "
        "learning rate.",
        "The normalisation cancels in log π_w − log π_l, so a pair's loss is f(θ_w − θ_l), with the gradients f′ on "
        "θ_w, −f′ on θ_l and 0 on every other logit. Start at θ = 0. The k responses in no pair keep θ = 0, and the m "
        "others keep the sum of their logits, 0. As exp is convex, their sum of exp θ is at least m (Jensen). So the "
        "mass of the k is at most k/(k + m), which is the start's.\n\n"
        "Adam divides each logit's gradient by its size, so the sum of logits moves, and the mass of the k may rise. "
        "Shared parameters move their logits. Balanced-DPO is no loss of the margin alone: its two gradients differ in "
        "size.",
        "test_gradient_descent_on_free_logits_never_raises_unobserved_mass",
    ),
)

_SHIFT = (
    Proof(
        "shift-dpo",
        "If from μ_p to μ_q the policy p never rises and the preference q never falls, one of them strictly "
        "everywhere, then DPO's weight w strictly increases from μ_p to μ_q (on any grid, in the continuum, and at "
        "every β), so no local extremum lies strictly between the modes, nor at a mode inside the support where p and "
        "q are differentiable, q′(μ_p) > 0 and p′(μ_q) < 0.",
        "w(y) is an increasing function of q(y), namely the mean of σ(log q(y) − log q(t)), minus an increasing "
        "function of p(y). Between the modes q(y) rises or p(y) falls, and neither works against the other, so w "
        "increases. At μ_p the slope of p is 0, so w′(μ_p) has the sign of q′(μ_p); at μ_q the slope of q is 0, so "
        "w′(μ_q) has the sign of −p′(μ_q). Both are positive, which excludes an extremum there.\n\n"
        "On a grid, or where p has a kink at μ_p, w may turn at the mode itself. With a reference that is not uniform, "
        "p/π_ref takes the place of p, and the theorem needs that this falls.",
        "test_dpos_weight_increases_between_the_modes",
    ),
    Proof(
        "shift-balanced",
        "For p and q that are continuously differentiable on an interval and unimodal, with both modes inside it, p "
        "strictly falling and q strictly rising from μ_p to μ_q, and q′(μ_p) > 0, the lowest value of w·p is always "
        "taken outside [μ_p, μ_q]: for w·p, which is our reconstruction of the balanced weight, Theorem 3 is refuted.",
        "By the theorem on DPO w increases on [μ_p, μ_q], and w sums to 0. *Case w(μ_p) ≥ 0.* Then w·p ≥ 0 on [μ_p, "
        "μ_q], and w > 0 on all of it but perhaps μ_p. As w sums to 0, it is negative somewhere outside, and so is "
        "w·p. *Case w(μ_p) < 0.* Where w < 0 in [μ_p, μ_q], (w·p)′ = w′p + w p′ ≥ 0, since w′ ≥ 0 and p′ ≤ 0; where w "
        "≥ 0, w·p ≥ 0. So w·p is nowhere in [μ_p, μ_q] lower than at μ_p. But p′(μ_p) = 0, so (w·p)′(μ_p) = "
        "w′(μ_p) p(μ_p) > 0 with the sign of q′(μ_p), and just left of μ_p there are lower values.\n\n"
        "The condition q′(μ_p) > 0 is needed: if q is flat around μ_p and w(μ_p) < 0, then w·p is proportional to −p "
        "there, and has a minimum at μ_p. On a grid the minimum may be at μ_p or a cell beside it, but need not: for p "
        "∝ (2, 3, 4, 2, 1) and q ∝ (1, 2, 3, 4, 1), w·p = (−37/360, −131/1680, −37/630, 197/1260, 1/72), with its "
        "minimum two cells left of μ_p.",
        "test_the_lowest_balanced_weight_lies_outside",
    ),
    Proof(
        "shift-levels",
        "Let the weight of y depend on y only through p(y) and q(y), and increase in q(y); if p and q are unimodal, p "
        "is continuous, and left of μ_p it comes down to its level at μ_q, the lowest weight is not in (μ_p, μ_q], and "
        "not at μ_p either where μ_p is inside the interval, everything is differentiable, and the weight's "
        "derivative by q and q′(μ_p) are positive.",
        "Let y be in (μ_p, μ_q]. Its level p(y) lies between p(μ_q) and p(μ_p), so p takes it left of μ_p too, at some "
        "y*. There p is the same and q lower, so the weight is lower at y* than at y. At μ_p the slope of p is 0, so "
        "the weight's slope has the sign of q′(μ_p), and just left of μ_p it is lower. On a grid the first part holds "
        "where p is symmetric about its mode and the grid reaches as far left of it as μ_q lies right.\n\n"
        "This covers w, w·p, (w − E_p[w])·p, p log(q/p) and Balanced-DPO's weights, also in logits: no positive factor "
        "that depends on p alone can put the lowest weight between the modes.",
        "test_a_weight_that_rises_with_preference_is_lowest_outside",
    ),
    Proof(
        "shift-bdpo",
        "Balanced-DPO's weight depends on p(y) and increases in q(y), so under the conditions of the theorem on "
        "levels its lowest value lies outside [μ_p, μ_q], at every β and whatever number n of responses λ sees; and as "
        "n grows it tends, for continuous p and q > 0 on a closed interval, to half of DPO's weight at β/2, which "
        "under the conditions of the theorem on DPO has no extremum in [μ_p, μ_q] at all.",
        "With ℓ = −log p of a response among n, Balanced-DPO has λ_ij = ℓ_j/(ℓ_i + ℓ_j) and, as λ_ij ℓ_i = λ_ji ℓ_j, "
        "the margin m_ij = β log n (ℓ_j − ℓ_i)/(ℓ_i + ℓ_j). Both depend on i through p_i alone. In w_i = Σ_j "
        "λ_ij [q_i/(q_i + q_j) − σ(m_ij)] the bracket increases in q_i, so the theorem on levels applies.\n\n"
        "*Limit.* On n cells of an interval p_i = r(y)/n, with a density r relative to uniform, bounded away from 0 "
        "and ∞. So ℓ = log n − log r(y), every λ tends to ½, and m_ij to (β/2)(log r(y) − log r(t)), both uniformly "
        "and as 1/log n. That is DPO's margin at β/2, with weight ½.\n\n"
        "*Case.* On a grid the lowest weight may be at μ_p itself, but need not. For p ∝ (2, 3, 4, 2, 1) and q ∝ (1, "
        "2, 3, 4, 1), five responses, the weights at β = 1 are (−.297, −.046, .091, .445, −.121) to three places: "
        "the lowest is two cells left of μ_p.",
        "test_balanced_dpos_lowest_weight_lies_outside",
    ),
    Proof(
        "variance",
        "For weights with E[w] = 0, Var[w p] < Var[w] E[p²] if and only if Cov(w², p²) < (E[w p])², with moments over "
        "responses drawn uniformly; without this condition Theorems 4 and 5 are refuted: the inequality is false for "
        "every policy that prefers one of n ≥ 3 responses and treats the others alike, p ∝ (a, 1, …, 1) with a > 1, "
        "where the preference is uniform.",
        "Var[w p] = E[w² p²] − (E[w p])² and, as E[w] = 0, Var[w] E[p²] = E[w²] E[p²]. Their difference is Cov(w², p²) "
        "− (E[w p])².\n\n"
        "For p ∝ (a, 1, …, 1) and uniform q, the n − 1 others have one weight, and the weights sum to 0, so w ∝ (1 − "
        "n, 1, …, 1). In these units Cov(w², p²) = (n − 1)(n − 2)(a² − 1)/n and (E[w p])² = (n − 1)²(a − 1)²/n². The "
        "first is at least the second where n(n − 2)(a + 1) ≥ (n − 1)(a − 1), which holds for every a > 1 once n(n − "
        "2) ≥ n − 1, so from n = 3 on. For p ∝ (8, 1, 1), Var[w p] : Var[w] E[p²] = 289/198.",
        "test_the_variance_grows_by_an_exact_counterexample",
    ),
)

_ATLAS = (
    Proof(
        "discopop-start",
        "At π = π_ref one step of descent on DiscoPOP's loss lowers the winner and raises the loser if and only if τ < "
        "(1 − ln 2)/3 = 0.102, whatever β and the probabilities are; so it does at τ = 0.05.",
        "With m = β(h_w − h_l), L(m) = −(1 − σ(m/τ)) log σ(m) + σ(m/τ) e^{−m}. At m = 0, σ = ½ and σ′ = ¼, so L′(0) = "
        "(ln ½)/(4τ) − ½ · ½ + 1/(4τ) − ½ = (1 − ln 2)/(4τ) − ¾, which is positive where τ < (1 − ln 2)/3. Descent "
        "then lowers m, since ∂L/∂log π_w = β L′(0) and ∂L/∂log π_l = −β L′(0). At τ = 0.05, L′(0) = 0.784.",
        "test_discopop_starts_away_from_the_labels",
    ),
)

_SAMPLING = (
    Proof(
        "sampling-dpo",
        "With exact Bradley–Terry labels, DPO's gradient vanishes at π ∝ π_ref exp(u/β) whatever the weights of pairs "
        "are, also if they follow the policy; and nowhere else if the pairs of positive weight connect all responses, "
        "as under every sampler with full support.",
        "Let s_ij ≥ 0 be the detached weight of the pair {i, j} and x = β(log π − log π_ref) − u. The gradient by "
        "log π_i is −β g_i with g_i = Σ_j s_ij [σ(u_i − u_j) − σ(u_i − u_j + x_i − x_j)]. The bracket changes its sign "
        "with the order of i and j, so Σ_i g_i = 0, and the gradient by logit i is the same number. At π ∝ π_ref "
        "exp(u/β) x is constant, and every bracket is 0, for any s.\n\n"
        "Conversely let g = 0. Then 0 = Σ_i x_i g_i = ½ Σ_ij s_ij (x_i − x_j) [σ(u_i − u_j) − σ(u_i − u_j + x_i − "
        "x_j)]. No term is positive, since σ increases, so each is 0: x_i = x_j wherever s_ij > 0. If these pairs "
        "connect all responses, x is constant, which is π ∝ π_ref exp(u/β).",
        "test_dpos_optimum_is_one_for_all_samplers",
    ),
    Proof(
        "sampling-bdpo",
        "If three responses have different utilities and the reference is uniform, no policy is a point of rest of "
        "Balanced-DPO for all positive weights of pairs; so where it settles depends on the sampler.",
        "The gradient is linear in the weights. If it vanishes for all positive ones, it vanishes for each pair alone. "
        "A pair's gradient by the logits is −β e (λ_w (δ_w − π) − λ_l (δ_l − π)), with e = σ(u_w − u_l) − σ(m_wl) and "
        "δ_y the unit vector of y. Its entry at w has the factor λ_w (1 − π_w) + λ_l π_w > 0, so e = 0: m_ij = u_i − "
        "u_j for all pairs, and m_ij + m_jk = m_ik.\n\n"
        "With ℓ = −log π and n responses, m_ij = β log n (ℓ_j − ℓ_i)/(ℓ_i + ℓ_j) = β log n tanh(½(log ℓ_j − log "
        "ℓ_i)). Since tanh x + tanh y = tanh(x + y)(1 + tanh x tanh y), the sum of two equals the third only if "
        "tanh x tanh y tanh(x + y) = 0: two of the three utilities are equal.",
        "test_no_policy_is_bdpos_for_all_samplers",
    ),
)

_LINE = (
    Proof(
        "unit-weights",
        "On densities, ½ is the only weight λ_w = λ(π_w, π_l) with one formula in every coordinate and 1 − λ_w where "
        "the labels are exchanged: Balanced-DPO then is DPO at β/2. If the formula may see the reference's densities,"
        " it sees u = dπ/dπ_ref alone, and the weights whose odds chain are λ_w = c(u_l)/(c(u_w) + c(u_l)), c > 0.",
        "In a coordinate z = φ(y) the densities at y are π(y)/φ′(y). For two responses y_w ≠ y_l and any two numbers "
        "J_w, J_l > 0 there is a smooth rising φ with these slopes at them. So λ(π_w/J_w, π_l/J_l) = λ(π_w, π_l) for "
        "all J_w and J_l. Take J_w = π_w and J_l = π_l: λ(π_w, π_l) = λ(1, 1), a constant. With the labels exchanged "
        "the same formula gives 1 − λ(1, 1) = λ(1, 1), so λ_w = ½, and the margin is (β/2)(h_w − h_l).\n\n"
        "*The conditions are needed.* A constant λ ≠ ½ has one formula, but treats the labels differently. If only "
        "the unit may change, z = c y, then J_w = J_l, and every function of π_w/π_l with f(x) + f(1/x) = 1 is left, "
        "such as π_w/(π_w + π_l). Balanced-DPO's log π_l/(log π_w + log π_l) changes even with the unit, and leaves "
        "[0, 1] where one density is above 1 and the other below.\n\n"
        "*With the reference.* J_w = π_ref(y_w) and J_l = π_ref(y_l) give λ_w = g(u_w, u_l) with g(a, b) + g(b, a) = "
        "1, and as u is the same in every coordinate, each such g will do. Let O = g/(1 − g) be the odds. If O(a, b) "
        "O(b, t) = O(a, t), put c(b) = O(1, b); then O(a, b) = O(a, 1) O(1, b) = c(b)/c(a). c = 1 is DPO at β/2; c = "
        "1/u has equal slopes in u on both sides; Balanced-DPO's −log u is 0 at the reference and changes its sign "
        "there; c = log(1 + 1/u), which is ours, is positive, ½ at the reference, and near −log u where u is small.",
        "test_one_half_is_the_only_weight_of_two_densities",
    ),
    Proof(
        "relative-bounds",
        "The margin of relative Balanced-DPO has the bounds −β log(1 + u_l) < m < β log(1 + u_w), with u = dπ/dπ_ref,"
        " so that it is less than β ln 2 in size where both u are at most 1, and tends to 0 where both sides fall.",
        "Put L = log(1 + u) > 0 and C = log(1 + 1/u) > 0, so that h = log u = L − C. With λ_w = C_l/(C_w + C_l) the C"
        " cancel: m/β = [C_l (L_w − C_w) − C_w (L_l − C_l)]/(C_w + C_l) = [C_l L_w − C_w L_l]/(C_w + C_l). This is "
        "less than L_w and more than −L_l, and both tend to 0 with u.",
        "test_the_margin_of_relative_bdpo_lies_between_its_bounds",
    ),
    Proof(
        "density-theorems",
        "Let responses be drawn by one law, whatever the coordinate, and p be the policy's density in it. Theorems 4 "
        "and 5, Var[w p] < Var[w] E[p²], have no answer of their own: in the coordinate of the policy's distribution "
        "function both sides are equal, and unless |w| is constant there are coordinates in which either side is the "
        "larger. By the modes of densities Theorem 3 has none either, but by the modes of p/π_ref and of the utility,"
        " which are no densities, DPO's half is true in every coordinate if it is in one.",
        "For any bounded g > 0 the coordinate with dz/dy = p/g has the policy's density g; w is a number of the "
        "response, the same in every coordinate. *Variance.* By the theorem on the variance the sign of Cov(w², g²) −"
        " (E[w g])² decides. g = 1 is the policy's distribution function: both terms are 0. For g = 1 + ε w², with ε "
        "small, Cov(w², g²) = 2ε Var(w²) + O(ε²), and (E[w g])² = O(ε²), since E[w] = 0. So ε > 0 makes the theorems "
        "false, and ε < 0 makes them true. A change of unit divides both sides by c², and changes nothing.\n\n"
        "*Modes.* Let w have an extremum at y*, and p/q fall around it; take a < y* < b. A coordinate whose slope "
        "dips to d_a and d_b in narrow places at a and b has high densities there. If p(a)/p(b) > d_a/d_b > "
        "q(a)/q(b), the mode of p is at a and that of q at b: now y* lies between the modes. The numbers p/π_ref, u "
        "and w do not change, and neither does where their extrema are.",
        "test_theorems_on_densities_depend_on_the_coordinate",
    ),
)

PROOFS: dict[str, Proof] = {proof.name: proof for proof in (*_RATIO, *_WORLD, *_SHIFT, *_ATLAS, *_SAMPLING, *_LINE)}
