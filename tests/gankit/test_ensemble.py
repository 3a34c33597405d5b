import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gankit import models
from gankit.models.ensemble import Ensemble, lead_shape, pair
from gankit.training.optimisers import ReplicaAdam

FAMILIES = {
    "mlp": lambda seed: models.mlp((1, 8, 8), z_dim=5, depth=3, width=7, seed=seed),
    "points": lambda seed: models.mlp((2,), z_dim=3, depth=3, width=7, seed=seed),
    "conv": lambda seed: models.conv((1, 8, 8), z_dim=5, depth=3, width=2, seed=seed),
    "dcgan": lambda seed: models.dcgan((3, 16, 16), z_dim=5, width=2, seed=seed),
    "dcgan-attention": lambda seed: models.dcgan_attention((3, 16, 16), z_dim=5, width=2, seed=seed),
    "sndcgan": lambda seed: models.sndcgan((3, 16, 16), z_dim=5, width=2, seed=seed),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_replica_computes_what_its_network_computes_alone(family):
    seeds = [3, 0, 7]
    G, D = pair(FAMILIES[family], seeds)
    z = torch.randn(3, 6, G.z_dim, generator=torch.Generator().manual_seed(0))
    fake = G(z)
    logits = D(fake)
    assert logits.shape == (3, 6)
    for i, seed in enumerate(seeds):
        g, d = FAMILIES[family](seed)
        torch.testing.assert_close(g(z[i]), fake[i])
        torch.testing.assert_close(d(fake[i]), logits[i])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_do_not_cross_between_replicas(family):
    G, D = pair(FAMILIES[family], [0, 1, 2])
    z = torch.randn(3, 6, G.z_dim, generator=torch.Generator().manual_seed(0))
    D(G(z))[1].sum().backward()
    for p in [*G.parameters(), *D.parameters()]:
        assert p.grad[0].abs().max() == 0
        assert p.grad[2].abs().max() == 0
    assert any(p.grad[1].abs().max() > 0 for p in G.parameters())


def test_batch_norm_keeps_statistics_per_replica():
    G, _ = pair(FAMILIES["dcgan"], [0, 1])
    z = torch.randn(2, 6, G.z_dim, generator=torch.Generator().manual_seed(0))
    alone = FAMILIES["dcgan"](1)[0]
    for _ in range(3):
        G(z), alone(z[1])
    theirs = dict(alone.named_buffers())
    ours = dict(G.replica(1).named_buffers())
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])
    G.eval(), alone.eval()
    before = copy.deepcopy(G.state_dict())
    torch.testing.assert_close(G(z)[1], alone(z[1]))
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_replica_can_be_taken_out(family):
    G, _ = pair(FAMILIES[family], [4, 5])
    with torch.no_grad():
        for p in G.parameters():
            p.add_(0.1)
    z = torch.randn(2, 3, G.z_dim, generator=torch.Generator().manual_seed(0))
    one = G.replica(1)
    torch.testing.assert_close(one(z[1]), G(z)[1])
    with torch.no_grad():
        next(one.parameters()).zero_()  # a copy: the ensemble does not notice
    assert next(G.parameters())[1].abs().max() > 0
    with pytest.raises(IndexError, match=r"replica 2 is not among the 2 replicas 0\.\.1"):
        G.replica(2)


def test_equal_seeds_start_equal_and_attributes_shine_through():
    G, D = pair(FAMILIES["mlp"], [1, 1, 2])
    first = next(G.parameters())
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert (G.z_dim, G.shape, G.n_classes, G.replicas, G.seeds) == (5, (1, 8, 8), 0, 3, (1, 1, 2))
    assert lead_shape(D) == (3,)
    assert lead_shape(nn.Linear(1, 1)) == ()
    with pytest.raises(AttributeError):
        _ = G.no_such_thing


def test_penalties_can_differentiate_twice_through_an_ensemble():
    for family in ("mlp", "conv"):
        _, D = pair(FAMILIES[family], [0, 1])
        x = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
        (g,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        g.square().sum().backward()
        assert next(D.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Ensemble(lambda s: nn.Linear(2, 2), []), "seeds is empty"),
        (lambda: Ensemble(lambda s: nn.Linear(2, 2 + s), [0, 1]), "replica 1 differs from replica 0"),
        (lambda: pair(FAMILIES["mlp"], [0, 1])[0](torch.zeros(3, 4, 5)), "S = 2 replicas"),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-4, 0.1), st.floats(0, 0.95), st.floats(0.5, 0.9999)), min_size=1, max_size=4
    )
)
def test_replica_adam_is_adam_with_each_replicas_own_numbers(settings_per_replica):
    generator = torch.Generator().manual_seed(0)
    s = len(settings_per_replica)
    start = torch.randn(s, 3, 4, generator=generator, dtype=torch.float64)
    gradients = torch.randn(6, s, 3, 4, generator=generator, dtype=torch.float64)
    lrs, beta1s, beta2s = zip(*settings_per_replica, strict=True)

    together = nn.Parameter(start.clone())
    ours = ReplicaAdam([together], lrs, beta1s, beta2s)
    for g in gradients:
        together.grad = g.clone()
        ours.step()
    for i, (lr, beta1, beta2) in enumerate(settings_per_replica):
        alone = nn.Parameter(start[i].clone())
        peer = torch.optim.Adam([alone], lr, (beta1, beta2))
        for g in gradients:
            alone.grad = g[i].clone()
            peer.step()
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-12)


def test_replica_adam_continues_from_its_state():
    def run(steps: int, p: nn.Parameter, adam: ReplicaAdam) -> None:
        for k in range(steps):
            p.grad = torch.full_like(p, 1.0 + k)
            adam.step()

    one = nn.Parameter(torch.zeros(2, 3))
    adam = ReplicaAdam([one], (0.1, 0.2), 0.5, (0.9, 0.99))
    run(3, one, adam)
    two = nn.Parameter(one.detach().clone())
    other = ReplicaAdam([two], (0.1, 0.2), 0.5, (0.9, 0.99))
    other.load_state_dict(copy.deepcopy(adam.state_dict()))
    run(3, one, adam), run(3, two, other)
    assert torch.equal(one, two)


def test_replica_adam_wants_one_number_per_replica():
    with pytest.raises(ValueError, match=r"beta2 must be one number or one per replica \(3\), got 2"):
        ReplicaAdam([nn.Parameter(torch.zeros(3, 2))], 0.1, 0.5, (0.9, 0.99))
