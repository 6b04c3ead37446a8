"""Presentation attack detection, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt import metrics
from edgeopt.metrics import NotMeasurable
from edgeopt.metrics.presentation_attack import Acer, Apcer, Bpcer
from edgeopt.recipe import MetricSpec
from edgeopt.statistics import paired_proportion_difference, proportion_interval

SETTINGS = {"confidence": 0.95, "seed": 0}
KINDS = np.array(["print"] * 4 + ["replay"] * 5 + [""] * 10)
#: Attack scores: at 0.5, 1 of 4 prints and 2 of 5 replays get through, and 3 of 10 people are turned away.
SCORES = np.array([0.9, 0.8, 0.7, 0.2, 0.9, 0.9, 0.6, 0.4, 0.1, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0])
ONE = SCORES[:, None].astype(np.float64)
ALL = (Apcer, Bpcer, Acer)


def test_the_rates_by_hand():
    assert Apcer(threshold=0.5, attack="print").compute(ONE, KINDS) == 1 / 4
    assert Apcer(threshold=0.5, attack="replay").compute(ONE, KINDS) == 2 / 5
    assert Apcer(threshold=0.5).compute(ONE, KINDS) == 2 / 5, "the worst type, not the 3/9 of all attacks"
    assert Bpcer(threshold=0.5).compute(ONE, KINDS) == 3 / 10, "a score at the threshold is an attack"
    assert Acer(threshold=0.5).compute(ONE, KINDS) == pytest.approx((2 / 5 + 3 / 10) / 2)


def test_the_types_and_counts_are_told():
    assert Apcer(threshold=0.5).remark(ONE, KINDS) == "worst of 2 attack types is replay: print 1/4, replay 2/5"
    only = np.isin(KINDS, ["", "print"])
    assert Apcer(threshold=0.5).remark(ONE[only], KINDS[only]) == "the only attack type is print: print 1/4"
    assert Bpcer(threshold=0.5).remark(ONE, KINDS) == "3/10 bona fide"
    assert Acer(threshold=0.5).remark(ONE, KINDS) == "APCER 0.4, BPCER 0.3"
    fitted = Apcer(attack="print").fit(ONE, KINDS)
    assert fitted.remark(ONE, KINDS).endswith("threshold 0.45 fixed on select")


@pytest.mark.parametrize("make", ALL)
def test_a_network_may_say_bona_fide_instead_of_attack(make):
    assert make(threshold=-0.5, high="bonafide").compute(-ONE, KINDS) == make(threshold=0.5).compute(ONE, KINDS)
    fitted = make(high="bonafide").fit(-ONE, KINDS)
    assert fitted.compute(-ONE, KINDS) == make().fit(ONE, KINDS).compute(ONE, KINDS)


@pytest.mark.parametrize("make", ALL)
def test_the_score_is_the_softmax_of_an_output(make):
    logits = np.stack([np.zeros(len(ONE)), np.log(np.clip(SCORES, 1e-9, 1) / np.clip(1 - SCORES, 1e-9, 1))], axis=1)
    want = make(threshold=0.51).compute(ONE, KINDS)
    assert make(threshold=0.51).compute(logits, KINDS) == want
    assert make(threshold=0.51, output=1).compute(logits, KINDS) == want
    assert make(threshold=0.49, output=0, high="bonafide").compute(logits, KINDS) == want
    assert make(threshold=0.51, softmax=False).compute(np.hstack([1 - ONE, ONE]), KINDS) == want


def test_the_eer_threshold_is_where_both_rates_are_closest():
    """At 0.45, 1/4 of the prints, 2/5 of the replays and 3/10 of the people; at 0.35, 1/4, 1/5 and 4/10."""
    fitted = Acer().fit(ONE, KINDS)
    assert "threshold 0.45 fixed on select" in fitted.note
    assert (fitted.fitted_on, Acer().note) == ("own", "")
    assert fitted.compute(ONE, KINDS) == pytest.approx(0.35)


def test_a_threshold_that_separates_lies_in_the_middle_of_the_gap():
    scores = np.array([[0.1], [0.2], [0.8], [0.9]])
    assert Acer().fit(scores, np.array(["", "", "a", "b"])).note == "threshold 0.5 fixed on select"


SPREAD = np.concatenate([np.linspace(0.2, 1, 400), np.linspace(0.3, 1, 300), np.linspace(0, 0.6, 500)])[:, None]
MANY = np.array(["print"] * 400 + ["replay"] * 300 + [""] * 500)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.1, 0.5])
def test_a_threshold_at_a_rate_uses_the_rate_up(rate):
    apcer = Apcer(at_apcer=rate).fit(SPREAD, MANY)
    assert rate - 1 / 300 < apcer.compute(SPREAD, MANY) <= rate
    assert rate - 1 / 250 <= Bpcer(at_bpcer=rate).fit(SPREAD, MANY).compute(SPREAD, MANY) <= rate


@given(
    seed=st.integers(0, 10_000), ties=st.booleans(), high=st.sampled_from(["attack", "bonafide"]), x=st.floats(0.1, 0.9)
)
def test_a_fixed_threshold_keeps_its_rate_whatever_the_scores(seed, ties, high, x):
    random = np.random.default_rng(seed)
    kinds = random.permutation(np.array(["print"] * 40 + ["mask"] * 35 + [""] * 50))
    scores = random.standard_normal((len(kinds), 1))
    scores = np.round(scores) if ties else scores
    assert Apcer(at_apcer=x, high=high).fit(scores, kinds).compute(scores, kinds) <= x
    assert Bpcer(at_bpcer=x, high=high).fit(scores, kinds).compute(scores, kinds) <= x
    eer = Acer(high=high).fit(scores, kinds)
    for threshold in np.unique(scores):
        given_ = {"threshold": float(threshold), "high": high}
        away = abs(Apcer(**given_).compute(scores, kinds) - Bpcer(**given_).compute(scores, kinds))
        apcer, bpcer = (part.compute(scores, kinds) for part in eer._parts())
        assert abs(apcer - bpcer) <= away + 1e-12


def test_the_threshold_comes_from_select_and_is_applied_to_other_samples():
    fitted = Apcer(at_bpcer=0.1).fit(SPREAD, MANY)
    harder = SPREAD - 0.1
    assert fitted.compute(harder, MANY) > fitted.compute(SPREAD, MANY)
    again = Apcer(at_bpcer=0.1).fit(harder, MANY)
    assert again.compute(harder, MANY) == fitted.compute(SPREAD, MANY)


def test_labels():
    assert [make().label for make in ALL] == ["apcer", "bpcer", "acer"]
    assert Apcer(attack="print").label == "apcer:print"
    assert Bpcer(at_apcer=0.01).label == "bpcer@apcer=0.01"
    assert Apcer(attack="print", at_bpcer=0.05).label == "apcer:print@bpcer=0.05"
    assert Acer(threshold=0.5).label == "acer@0.5"
    assert Acer(threshold_of="baseline").label == "acer@baseline"
    assert Bpcer(at_apcer=0.01).fit(SPREAD, MANY).label == "bpcer@apcer=0.01"
    assert (Acer(threshold=0.5).fitted_on, Acer(threshold_of="baseline").fitted_on) == ("", "baseline")
    assert (Acer(threshold_of="baseline").needs_baseline, Acer().needs_baseline) == (True, False)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"at_apcer": 0.01, "threshold": 0.5}, "give one of threshold, at_apcer, at_bpcer"),
        ({"at_apcer": 0.0}, "at_apcer: .*greater than 0"),
        ({"at_apcer": 1.0}, "at_apcer: .*less than 1"),
        ({"high": "live"}, "high: .*'attack' or 'bonafide'"),
        ({"threshold_of": "mine"}, "threshold_of: "),
        ({"threshold": 0.5, "threshold_of": "baseline"}, "one is given"),
        ({"treshold": 0.5}, "treshold: acer has no such parameter .*did you mean 'threshold'"),
        ({"output": "attack"}, "output: "),
        ({"_fixed": 0.5}, "_fixed: acer has no such parameter"),
    ],
)
def test_parameters_that_make_no_sense(args, why):
    with pytest.raises(ValueError, match=why):
        metrics.build(MetricSpec(name="acer", args=args))


def test_a_recipe_names_a_type_and_a_rate():
    built = metrics.build(MetricSpec(name="apcer", args={"attack": "print", "at_bpcer": 0.01}))
    assert built == Apcer(attack="print", at_bpcer=0.01)


@pytest.mark.parametrize(
    ("kinds", "metric", "why"),
    [
        (["", "", ""], Apcer(threshold=0.5), "no sample is an attack"),
        (["", "", ""], Acer(threshold=0.5), "no sample is an attack"),
        (["a", "a", "b"], Bpcer(threshold=0.5), "no sample is a bona fide presentation"),
        (["a", "a", "b"], Acer(threshold=0.5), "no sample is a bona fide presentation"),
        (["a", "", "b"], Apcer(threshold=0.5, attack="c"), r"no sample is an attack of type 'c' \(there are: a, b\)"),
    ],
)
def test_samples_that_cannot_support_a_rate(kinds, metric, why):
    with pytest.raises(NotMeasurable, match=why):
        metric.require(np.array(kinds), fitting=False)
    with pytest.raises(NotMeasurable, match=why):
        metric.compute(np.zeros((3, 1)), np.array(kinds))


def test_a_rate_that_needs_only_one_kind_of_sample_takes_it():
    assert Bpcer(threshold=0.5).compute(np.zeros((3, 1)), np.array(["", "", ""])) == 0
    assert Apcer(threshold=0.5).compute(np.zeros((3, 1)), np.array(["a", "a", "b"])) == 1


def test_a_threshold_needs_both_kinds_and_enough_of_them():
    with pytest.raises(NotMeasurable, match="no sample is a bona fide"):
        Apcer().fit(np.zeros((3, 1)), np.array(["a", "a", "b"]))
    with pytest.raises(NotMeasurable, match=r"a threshold at 0\.005 needs 600 attacks of type 'print', there are 400"):
        Bpcer(at_apcer=0.005).fit(SPREAD, MANY)
    with pytest.raises(NotMeasurable, match="needs 600 bona fide presentations, there are 500"):
        Bpcer(at_bpcer=0.005).fit(SPREAD, MANY)
    Bpcer(at_apcer=0.01).fit(SPREAD, MANY)  # exactly 300 replays


@pytest.mark.parametrize("name", ["live", "Real", "bona fide", "Bonafide", "genuine", "nan", " "])
def test_an_attack_type_that_sounds_bona_fide_is_refused(name):
    with pytest.raises(ValueError, match=r"is .* an attack type"):
        Apcer().truth({"attack": np.array(["print", name])})


def test_the_column_is_text():
    np.testing.assert_array_equal(Apcer().truth({"attack": np.array(["bonafide", "", "print"])}), ["", "", "print"])
    with pytest.raises(ValueError, match="as text, got int64"):
        Apcer().truth({"attack": np.array([0, 1])})
    with pytest.raises(KeyError, match="attack"):
        Apcer().truth({"labels": np.array([0, 1])})


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("make", ALL)
def test_nan_is_no_answer(make, wrong):
    outputs = ONE.copy()
    outputs[3] = wrong
    with pytest.raises(ValueError, match="NaN or infinity"):
        make(threshold=0.5).compute(outputs, KINDS)


@pytest.mark.parametrize(("shape", "output"), [((19,), -1), ((19, 2), 2), ((19, 2), -3), ((19, 1, 1), 0)])
def test_outputs_that_do_not_fit(shape, output):
    with pytest.raises(ValueError, match="needs outputs"):
        Bpcer(threshold=0.5, output=output).compute(np.zeros(shape), KINDS)


def test_decisions():
    fitted = Acer().fit(ONE, KINDS)
    np.testing.assert_array_equal(fitted.decisions(ONE)[:4], ["attack", "attack", "attack", "bonafide"])
    assert fitted.right(ONE, KINDS).mean() == 1 - 6 / 19
    with pytest.raises(ValueError, match="has no threshold yet"):
        Acer().decisions(ONE)


def test_the_interval_of_one_rate_is_exact():
    assert Bpcer(threshold=0.5).interval(ONE, KINDS, **SETTINGS) == proportion_interval(3, 10).interval
    assert Apcer(threshold=0.5, attack="print").interval(ONE, KINDS, **SETTINGS) == proportion_interval(1, 4).interval


def test_the_interval_of_the_worst_type_has_the_largest_upper_bound_and_a_strict_lower_one():
    low, high = Apcer(threshold=0.5).interval(ONE, KINDS, **SETTINGS)
    assert high == max(proportion_interval(1, 4).interval[1], proportion_interval(2, 5).interval[1])
    assert low == proportion_interval(2, 5, 0.975).interval[0]


def test_no_error_at_all_does_not_prove_a_rate_of_zero():
    scores = np.where(KINDS == "", 0.0, 1.0)[:, None]
    for make in ALL:
        low, high = make(threshold=0.5).interval(scores, KINDS, **SETTINGS)
        assert low == 0
        assert high > 0.15
        low, high = make(threshold=0.5).drop_interval(scores, scores, KINDS, make(threshold=0.5), **SETTINGS)
        assert low < 0 < high


def test_the_drop_of_one_rate_is_the_paired_difference():
    worse = ONE.copy()
    worse[[0, 9]] = 0.3  # one more print gets through, one less of the people is turned away
    metric = Apcer(threshold=0.5, attack="print")
    found = metrics.drop(metric, metric, worse, ONE, KINDS, **SETTINGS)
    low, high = paired_proportion_difference([1, 0, 0, 1], [0, 0, 0, 1]).interval
    assert (found.value, found.interval) == (1 / 4, pytest.approx((low, high)))
    found = metrics.drop(Bpcer(threshold=0.5), Bpcer(threshold=0.5), worse, ONE, KINDS, **SETTINGS)
    assert found.value == pytest.approx(-1 / 10)
    assert found.better == "lower"


def test_the_baseline_keeps_its_own_threshold_in_a_drop():
    """The same order of scores at another level is no drop if production calibrates anew, and one if it does not."""
    shifted = SPREAD * 0.8
    own, reference = (Acer().fit(scores, MANY) for scores in (shifted, SPREAD))
    assert metrics.drop(own, reference, shifted, SPREAD, MANY, **SETTINGS).value == 0
    kept = Apcer(threshold_of="baseline").fit(SPREAD, MANY)
    lost = metrics.drop(kept, kept, shifted, SPREAD, MANY, **SETTINGS)
    assert lost.value > 0.1
    assert lost.interval[0] > 0


def test_intervals_cover_the_truth_also_where_errors_are_rare():
    """Three types with the same rate: the largest observed one is biased upwards."""
    random, rate, rounds = np.random.default_rng(0), 0.03, 400
    kinds = np.repeat(["", "a", "b", "c"], 100)
    missed = dict.fromkeys((Apcer, Bpcer, Acer), 0)
    for _ in range(rounds):
        scores = ((kinds != "") ^ (random.random(len(kinds)) < rate)).astype(float)[:, None]
        for make in missed:
            low, high = make(threshold=0.5).interval(scores, kinds, **SETTINGS)
            missed[make] += not low <= rate <= high
    assert all(count / rounds <= 0.07 for count in missed.values()), missed
