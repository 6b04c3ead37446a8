from __future__ import annotations

import io
from dataclasses import replace

import pytest

from edgeopt.console import print_summary
from edgeopt.report import alarms, html
from edgeopt.report.markdown import escape, render
from tests import made_up_run
from tests.made_up_run import measured


@pytest.fixture
def eventful(record):
    return made_up_run.eventful(record)


def _titles(run) -> list[str]:
    return [alarm.title for alarm in alarms.alarms(run)]


def _with_far(run, before, after, suffix="", *more, at="float=0.001"):
    """``cpu`` with false accepts (value, low, high) at the float threshold, of its float baseline and of what ships."""
    cpu = run.targets["cpu"]
    metric = f"far@{at}{suffix}"

    def fitted(candidate):
        value, low, high = after if candidate.id == cpu.shipped else before
        kept = tuple(m for m in candidate.measurements if "@" not in m.metric)
        extra = more if candidate.id == cpu.shipped else ()
        return replace(candidate, measurements=(*kept, measured(metric, value, "1", (low, high)), *extra))

    target = replace(cpu, candidates=tuple(map(fitted, cpu.candidates)), disturbed=())
    return replace(run, targets={"cpu": target}, waivers=())


def test_a_plain_run_has_none(passing):
    assert alarms.alarms(passing) == ()


def test_the_worst_come_first(eventful):
    tones = [alarm.tone for alarm in alarms.alarms(eventful)]
    assert tones == ["fail", "fail", "waived", "inconclusive"]


def test_false_accepts_that_grew_are_said_with_their_factor_and_the_new_threshold(eventful):
    alarm = alarms.alarms(eventful)[0]
    assert alarm.title == "Do not keep the float model's threshold on cpu: false accepts grow 3.3× [3, 3.6]"
    assert "5.6 % [5.1, 6.2] instead of 1.7 % [1.4, 2]" in alarm.text
    assert "The threshold calibrated anew for the same point is 0.4100 [0.400, 0.420]." in alarm.text


def test_without_a_new_threshold_it_asks_for_one(record):
    run = _with_far(record, (0.017, 0.014, 0.02), (0.056, 0.051, 0.062))
    assert alarms.alarms(run)[0].text.endswith("Calibrate a new threshold before it ships.")


@pytest.mark.parametrize(
    ("after", "tone"),
    [
        ((0.056, 0.051, 0.062), "fail"),
        ((0.0172, 0.0171, 0.0173), "fail"),
        ((0.018, 0.015, 0.021), "inconclusive"),
        ((0.018, None, 0.021), "inconclusive"),
        ((0.017, 0.014, 0.02), ""),
        ((0.001, 0.0, 0.002), ""),
    ],
)
def test_only_what_the_whole_interval_shows_is_called_worse(record, after, tone):
    found = alarms.alarms(_with_far(record, (0.017, 0.014, 0.02), after))
    assert [alarm.tone for alarm in found] == ([tone] if tone else [])


def test_a_paired_difference_outweighs_two_intervals_that_touch(record):
    """The same pairs judge both, so that the difference is known better than either."""
    drop = measured("far@float=0.001 drop", 0.001, "1", (0.0002, 0.0018))
    assert alarms.alarms(_with_far(record, (0.017, 0.014, 0.02), (0.018, 0.015, 0.021), "", drop))[0].tone == "fail"


def test_every_evaluation_set_is_looked_at(record):
    run = _with_far(record, (0.017, 0.014, 0.02), (0.056, 0.051, 0.062), "[outdoor]")
    assert "on cpu [outdoor]: false accepts grow 3.3×" in _titles(run)[0]


@pytest.mark.parametrize("suffix", ["", "[indoor]"])
def test_a_threshold_that_production_gave_is_as_loud(record, suffix):
    new = measured("threshold@far=0.42", 0.5, "1", (0.4, 0.6))  # of a FAR of 0.42, not of this threshold
    run = _with_far(record, (0.017, 0.014, 0.02), (0.056, 0.051, 0.062), suffix, new, at="threshold=0.42")
    (alarm,) = alarms.alarms(run)
    where = f"on cpu {suffix}".strip()
    assert alarm.title == f"Do not keep the float model's threshold {where}: false accepts grow 3.3× [3, 3.6]"
    assert alarm.text.startswith("At the threshold that the float model has in production (0.42), ")
    assert "5.6 % [5.1, 6.2] instead of 1.7 % [1.4, 2]" in alarm.text
    assert alarm.text.endswith("Calibrate a new threshold before it ships.")


def test_a_ship_with_a_red_alarm_says_so_on_the_line_of_the_decision(passing):
    cpu = replace(passing.targets["cpu-openvino"], disturbed=())
    run = replace(passing, targets={"cpu": cpu})
    red = _with_far(run, (0.017, 0.014, 0.02), (0.056, 0.051, 0.062))
    stream = io.StringIO()
    print_summary(red, stream)
    assert render(red, {}).splitlines()[2].endswith("on 1 target. Read the alarm below before you sign.")
    assert "on 1 target. <strong>Read the alarm below before you sign.</strong>" in html.render(red, {})
    assert stream.getvalue().splitlines()[-1].startswith("SHIP")
    assert " ".join(stream.getvalue().split()).endswith("on 1 target. Read the alarm above before you sign.")


def test_the_reminder_counts_all_alarms_and_stays_away_if_none_is_red(eventful):
    found = alarms.alarms(eventful)
    assert alarms.reminder(found, "below") == "Read the 4 alarms below before you sign."
    assert alarms.reminder([alarm for alarm in found if alarm.tone != "fail"], "below") == ""
    assert alarms.reminder((), "below") == ""


def test_no_false_accepts_before_is_no_division(record):
    titles = _titles(_with_far(record, (0.0, 0.0, 0.001), (0.01, 0.005, 0.02)))
    assert titles == ["Do not keep the float model's threshold on cpu: false accepts appear where there were none"]


def test_a_float_model_that_ships_keeps_its_threshold(eventful):
    cpu = replace(eventful.targets["cpu"], shipped="openvino-float")
    assert not any("threshold" in title for title in _titles(replace(eventful, targets={"cpu": cpu})))


@pytest.mark.parametrize(
    ("status", "tone", "words"),
    [("expired", "fail", "expired after"), ("unused", "fail", "not needed"), ("not_judged", "inconclusive", "excuse")],
)
def test_waivers_that_excuse_nothing_are_named(passing, record, status, tone, words):
    (alarm,) = alarms.alarms(replace(passing, waivers=(replace(record.waivers[0], status=status),)))
    assert (alarm.tone, words in alarm.title) == (tone, True)
    assert "Dana Ruiz" in alarm.text


def test_a_waived_gate_says_by_whom_until_when_and_why(record):
    (alarm,) = [a for a in alarms.alarms(record) if a.tone == "waived"]
    assert alarm.title == "peak_memory_mib max on cpu-openvino fails and is waived"
    for words in ("118 MiB, limit ≤ 100 MiB", "Dana Ruiz", "2026-12-31", "the new board has twice the memory"):
        assert words in alarm.text


def test_every_sentence_about_a_disturbed_machine_is_there(eventful):
    alarm = alarms.alarms(eventful)[-1]
    assert alarm.title == "The machine was disturbed while cpu was timed"
    assert alarm.text.startswith("The load rose from 0.2 to 3.9. The frequency fell by 27 %. ")
    assert "one that fails is inconclusive" in alarm.text


def test_markdown_has_them_all_before_the_gates(eventful, record):
    top = render(eventful, {}).partition("## Gates")[0]
    for alarm in alarms.alarms(eventful):
        assert escape(alarm.title) in top


def test_simulated_false_accepts_are_labelled(record):
    run = _with_far(record, (0.017, 0.014, 0.02), (0.056, 0.051, 0.062))
    cpu = run.targets["cpu"]

    def unreal(candidate):
        if candidate.id != cpu.shipped:
            return candidate
        return replace(candidate, measurements=tuple(replace(m, method="simulated") for m in candidate.measurements))

    target = replace(cpu, candidates=tuple(map(unreal, cpu.candidates)))
    alarm = alarms.alarms(replace(run, targets={"cpu": target}))[0]
    assert alarm.title.endswith("grow 3.3× [3, 3.6] (SIMULATED)")
    assert "5.6 % [5.1, 6.2] (SIMULATED) instead of 1.7 % [1.4, 2] of" in alarm.text
