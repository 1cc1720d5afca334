"""Log-probabilities of tokens: values and gradients are those of PyTorch's log-softmax, in every way to get them."""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from gradlab.llm.model.token_logps import from_hidden, from_logits

TOKENS, WIDTH, WORDS = 11, 6, 9
KINDS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}


def drawn(kind=torch.float64):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw).to(kind).requires_grad_()
    target = torch.randint(WORDS, (TOKENS,), generator=draw)
    head = nn.Linear(WIDTH, WORDS, bias=False, dtype=kind)
    with torch.no_grad():
        head.weight.copy_(torch.randn(WORDS, WIDTH, generator=draw))
    return head, hidden, target, torch.randn(TOKENS, generator=draw).to(torch.promote_types(kind, torch.float32))


def by_log_softmax(head, hidden, target, factor):
    """Log π, and the gradients of a weighted sum for hidden states and weights, by PyTorch's operations in float64."""
    hidden, weight = hidden.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()
    logps = (hidden @ weight.T).log_softmax(-1).gather(-1, target[:, None])[:, 0]
    return logps.detach(), *torch.autograd.grad((logps * factor).sum(), (hidden, weight))


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "still"])
@pytest.mark.parametrize("chunk", [1, 4, TOKENS, 100])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_chunks_give_log_softmax_and_its_gradient(kind, chunk, trained):
    head, hidden, target, factor = drawn(kind)
    head.requires_grad_(trained)
    logps = from_hidden(head, hidden, target, chunk)
    (logps * factor).sum().backward()
    expected = by_log_softmax(head, hidden, target, factor)
    found = [logps.detach(), hidden.grad, *([head.weight.grad] if trained else [])]
    assert logps.dtype == torch.promote_types(kind, torch.float32)
    for one, other in zip(found, expected, strict=False):
        assert float((one.double() - other).abs().max()) <= KINDS[kind] * float(other.abs().max())
    assert (head.weight.grad is None) != trained


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "still"])
def test_autocast_computes_the_products_in_half_precision(trained):
    head, hidden, target, factor = drawn(torch.float32)
    head.requires_grad_(trained)
    with torch.autocast("cpu", torch.bfloat16):
        logps = from_hidden(head, hidden, target, 4)
    (logps * factor).sum().backward()
    value, slope, _ = by_log_softmax(head, hidden, target, factor)
    assert logps.dtype == hidden.grad.dtype == torch.float32
    assert 0 < float((logps.detach() - value).abs().max()) < 0.05
    assert float((hidden.grad - slope).norm() / slope.norm()) < 0.02


def test_a_second_walk_through_the_graph_is_an_error_and_never_wrong():
    logits = torch.randn(3, 5, requires_grad=True)
    value = from_logits(logits, torch.tensor([0, 1, 2])).sum()
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_words_that_are_ruled_out_get_no_gradient():
    logits = torch.tensor([[0.0, -torch.inf, 1.0]], requires_grad=True)
    from_logits(logits, torch.tensor([2])).backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 1]) == 0
    assert logits.grad.isfinite().all()


def test_without_gradients_nothing_is_kept():
    head, hidden, target, factor = drawn()
    with torch.no_grad():
        logps = from_hidden(head, hidden, target, 3)
    assert not logps.requires_grad
    assert torch.allclose(logps, by_log_softmax(head, hidden, target, factor)[0])


def test_no_tokens_are_no_error():
    head, hidden, target, _ = drawn()
    assert from_hidden(head, hidden[:0], target[:0], 4).shape == (0,)
