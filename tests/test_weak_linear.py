"""Multiple-instance logistic regression: its statistics, its worked loss, and that it is logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from trainers.losses.linear import loss, weight_l2
from vad.config import load
from vad.weak import WeakOutput


def build(**values):
    return load("vad.heads", {"kind": "linear", "dim": 4, **values}).build()


def test_parameters_are_one_per_feature():
    assert sum(p.numel() for p in build(dim=1024).parameters()) == 1025
    assert build().lookahead == 0
    assert build().receptive == 1


def test_a_fresh_head_knows_nothing():
    assert (build()(torch.randn(2, 3, 4)).scores_BT == 0.5).all()


def test_statistics_are_those_of_the_training_rows_however_they_are_cut():
    rows = torch.randn(30, 2, 4, generator=torch.manual_seed(0)) * 3 + 1
    head, other = build(unit_length=False, root=False), build(unit_length=False, root=False)
    head.prepare([rows])
    other.prepare(list(rows.split(7)))
    torch.testing.assert_close(head.mean_D, rows.flatten(0, 1).mean(0))
    plain = rows.flatten(0, 1).std(0, unbiased=False)
    torch.testing.assert_close(head.deviation_D, plain + 1e-3 * plain.mean())
    torch.testing.assert_close(other.state_dict(), head.state_dict())


def test_rows_are_scaled_and_rooted():
    head = build()
    torch.nn.init.ones_(head.layer.weight)
    logit = torch.logit(head(torch.tensor([[[9.0, -16.0, 0.0, 0.0]]])).scores_BT)
    length = 337**0.5
    assert logit.item() == pytest.approx(3 / length**0.5 - 4 / length**0.5, abs=1e-4)


def test_the_loss_is_the_cross_entropy_of_the_highest_snippet():
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.4]])
    parts = loss(WeakOutput(scores), torch.tensor([True, False]))
    assert parts["bag"].item() == pytest.approx(-(np.log(0.9) + np.log(0.6)) / 2)
    assert weight_l2(build()).item() == 0


def test_on_videos_of_one_snippet_it_is_logistic_regression():
    random = np.random.default_rng(0)
    rows = random.normal(size=(80, 4)).astype(np.float32)
    labels = rows @ [2, -1, 0.5, 0] + random.normal(size=80) > 0.3
    head = build(unit_length=False, root=False)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        output = head(torch.from_numpy(rows)[:, None])
        total = loss(output, torch.from_numpy(labels))["bag"] + weight_l2(head, weight=0.1)
        total.backward()
        return total

    optimiser.step(step)
    # theirs: half the squared weights and C times the summed loss
    theirs = LogisticRegression(C=1 / (2 * 0.1 * 80), tol=1e-8).fit(rows, labels)
    np.testing.assert_allclose(head.layer.weight.detach().numpy(), theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(head.layer.bias.detach().numpy(), theirs.intercept_, atol=1e-3)
