from __future__ import annotations

import math
import os
import random
import socket
import sys
import threading
import time
import types
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import Film

from streamdream import settings
from streamdream.errors import Error, OptionError, SourceError
from streamdream.live import midi, osc, sound
from streamdream.live.controls import ACTIONS, Controls
from streamdream.live.midi import Desk, Key, Midi
from streamdream.live.options import SIGNALS, LiveOptions
from streamdream.live.osc import Osc, place_of
from streamdream.live.signals import Signals
from streamdream.live.sound import Analysis, Sound
from streamdream.settings import made, preset_names

RATE = 48000


class Watch:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def until(true: Callable[[], object], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.005)
    return bool(true())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("streamdream-")]


def within(controls: Controls, options: LiveOptions) -> bool:
    """Whether all numbers are what their options allow."""
    for name, control in controls.table.items():
        value = getattr(options, name.replace("-", "_"))
        if control.kind in ("number", "whole"):
            low = -math.inf if control.least is None else control.least
            high = math.inf if control.most is None else control.most
            if not low <= value <= high or math.isnan(value):
                return False
    return True


# Controls


def test_a_number_ramps_to_its_goal_and_arrives() -> None:
    controls = Controls(LiveOptions(strength=0.0))
    begun = time.monotonic()
    controls.set("strength", 2.0, seconds=10)
    seen = [controls.at(begun + t).strength for t in (0, 2.5, 5, 7.5)]
    assert seen == sorted(seen)
    assert seen[2] == pytest.approx(1.0, abs=0.05)
    assert controls.at(begun + 20).strength == 2.0
    assert controls.at(time.monotonic()).strength == 2.0  # and stays
    assert controls.values()["strength"] == 2.0


@pytest.mark.alone
def test_a_ramp_that_is_sent_elsewhere_goes_on_from_where_it_is() -> None:
    controls = Controls(LiveOptions(strength=0.0))
    controls.set("strength", 2.0, seconds=0.2)
    time.sleep(0.1)
    before = controls.at().strength
    controls.set("strength", 0.0, seconds=100)
    assert controls.at().strength == pytest.approx(before, abs=0.3)
    assert 0.2 < before < 1.8


def test_whole_numbers_and_choices_change_at_once() -> None:
    controls = Controls(LiveOptions())
    controls.set("octaves", 2, seconds=60)
    controls.set("flow", "none", seconds=60)
    assert controls.at().octaves == 2
    assert controls.at().flow == "none"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_follow_every_other(name: str) -> None:
    for first in preset_names():
        controls = Controls(LiveOptions())
        controls.take_preset(first, 0)
        controls.take_preset(name, 0)
        alone = Controls(LiveOptions())
        alone.take_preset(name, 0)
        assert controls.values() == alone.values()
        assert controls.preset == name


def test_a_preset_fades_in_and_puts_back_what_it_does_not_name() -> None:
    controls = Controls(LiveOptions(memory=5.0, mirror=True))
    controls.set("memory", 1.0, 0)
    controls.set("strength", 0.2, 0)
    begun = time.monotonic()
    controls.take_preset("whisper", 10)  # strength 0.7, memory 8
    assert controls.at(begun + 5).strength == pytest.approx(0.45, abs=0.02)
    assert controls.at(begun + 11).memory == 8.0
    controls.take_preset("eyes", 0)
    assert controls.at().memory == 5.0
    assert controls.at().strength == 1.0
    assert controls.at().mirror  # not a matter of looks


def test_a_run_with_another_network_can_take_all_presets() -> None:
    controls = Controls(LiveOptions(model="vgg19", layers=("relu5_1",)))
    for name in preset_names():
        controls.take_preset(name, 0)
        assert controls.at().model == ("vgg19" if name == "classic" else "efficientnet-lite0")


def test_the_preset_that_a_run_began_with_leaves_nothing_behind() -> None:
    begun = LiveOptions(model="vgg19", layers=("relu5_1",), octaves=3, steps=8, jitter=5)
    controls = Controls(begun, "classic")
    controls.take_preset("eyes", 0)
    assert controls.at().model == "efficientnet-lite0"
    assert controls.at().octaves == LiveOptions().octaves
    assert controls.at().jitter == 5  # was not the preset's


MOVING = LiveOptions.model_validate(
    {
        "strength": "0: 0, 10s: 2", "octaves": "0: 1, 90: 4", "fps": 30,
        "layers": "0: block5, 10s: block9", "react": ("step-size: bass 1..3",),
        "step_size": "0.5 + t",
    }
)  # fmt: skip


def test_schedules_count_from_the_beginning_and_signals_go_over_them() -> None:
    controls = Controls(MOVING, signals=lambda: {"bass": 1.0})
    now = controls.at(controls._began + 5)
    assert now.strength == pytest.approx(1.0)
    assert now.octaves == 4
    assert now.layers == ("block5*0.5", "block9*0.5")
    assert now.step_size == 3.0
    assert controls.at_without_signals(controls._began + 5).step_size == pytest.approx(5.5)
    assert controls.at(controls._began + 1).octaves == 2
    assert controls.look(controls._began + 1) == controls.look(controls._began + 9)


def test_what_is_set_by_hand_replaces_a_schedule() -> None:
    controls = Controls(MOVING)
    late = controls._began + 100
    controls.set("strength", 0.3, 0)
    controls.nudge("octaves", 0.01)
    controls.set("layers", ["block8"])
    assert set(controls.goal.schedules) == {"step_size"}
    now = controls.at(late)
    assert (now.strength, now.octaves, now.layers) == (0.3, 2, ("block8",))
    begun = time.monotonic()
    controls.set("step-size", 60.5, seconds=10)  # from where the schedule is, without a leap
    assert controls.at(begun).step_size == pytest.approx(0.5 + begun - controls._began, abs=0.5)
    assert controls.at(begun + 5).step_size == pytest.approx(30.5, abs=1)
    assert controls.values()["strength"] == 0.3


def test_a_preset_replaces_the_schedules_of_what_it_names() -> None:
    controls = Controls(MOVING)
    late = controls._began + 100
    controls.take_preset("whisper", 0)
    assert set(controls.goal.schedules) == {"octaves"}
    assert controls.at(late).strength == 0.7
    controls.take_preset("eyes", 0)  # what it does not name is again what the run began with
    assert set(controls.goal.schedules) == {"octaves", "strength", "step_size"}
    assert controls.at(late).strength == 2.0


def test_a_schedule_may_be_set_while_it_runs_and_needs_no_length() -> None:
    controls = Controls(LiveOptions())
    controls.set("strength", "0: 0, 100s: 1")
    assert controls.at(controls._began + 50).strength == pytest.approx(0.5)
    controls.take_preset("0: eyes, 100s: whisper", 0)
    assert controls.at(controls._began + 50).strength == pytest.approx(0.85)
    before = controls.goal
    for wrong in ("0: 0, 50%: 1", "p", "0: 0, 3z: 1", "0: 9", "1/(t - 2)"):
        with pytest.raises(OptionError):
            controls.set("strength", wrong)
    with pytest.raises(OptionError, match="holds for a whole run"):
        controls.set("fade", "0: 0, 3s: 1")
    assert controls.goal == before
    with pytest.raises(OptionError, match="needs a length"):
        Controls(LiveOptions.model_validate({"strength": "0: 0, 50%: 1"}))


def test_a_run_that_began_with_presets_in_turn_leaves_them_behind() -> None:
    options = settings.chosen(LiveOptions, None, "0: eyes, 100s: whisper")
    controls = Controls(options, "0: eyes, 100s: whisper")
    assert controls.at(controls._began + 50).strength == pytest.approx(0.85)
    controls.act("next-preset")
    assert not controls.goal.schedules


def test_presets_come_in_turn_and_at_random() -> None:
    controls = Controls(LiveOptions())
    seen = []
    for _ in preset_names():
        controls.act("next-preset")
        seen.append(controls.preset)
    assert sorted(filter(None, seen)) == list(preset_names())
    controls.act("previous-preset")
    assert controls.preset == seen[-2]
    for _ in range(20):
        before = controls.preset
        controls.act("random-preset")
        assert controls.preset != before


def test_reactions_follow_signals_within_what_is_allowed() -> None:
    heard = {"bass": 0.0, "onset": 0.0, "beat": 0.0}
    react = ("strength: bass 0.4..1.2", "jitter: onset -50..9999", "octave-scale: bass 1..9")
    controls = Controls(LiveOptions(react=react), signals=lambda: heard)
    assert controls.at().strength == pytest.approx(0.4)
    for place in (0.0, 0.25, 1.0, -5.0, 17.0, math.nan):
        heard.update(bass=place, onset=place)
        now = controls.at()
        assert within(controls, now)
        assert isinstance(now.jitter, int)
        assert 0.4 <= now.strength <= 1.2
        assert now.octaves_at((200, 300)) >= 1
    heard.update(bass=0.25)
    assert controls.at().strength == pytest.approx(0.6)
    assert controls.values()["strength"] == 1.0  # what was asked for, without the signal


def test_a_signal_that_is_missing_changes_nothing() -> None:
    controls = Controls(LiveOptions(react=("strength: motion",)), signals=dict)
    assert controls.at().strength == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", 99),
        ("strength", -1),
        ("strength", math.nan),
        ("strength", math.inf),
        ("strength", "much"),
        ("strength", None),
        ("strength", 10**400),
        ("octave-scale", 1),
        ("octaves", 2.5e30),
        ("octaves", []),
        ("mirror", "banana"),
        ("mirror", {}),
        ("flow", "rivers"),
        ("flow", 1),
        ("layers", "nowhere"),
        ("layers", "x" * 5000),
        ("layers", [1, 2]),
        ("model", "gpt"),
        ("seed", 2**63),
        ("record", "/etc/passwd"),
        ("nothing", 1),
        ("", 1),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(name: str, value: object) -> None:
    controls = Controls(LiveOptions())
    before = controls.values()
    with pytest.raises(Error):
        controls.set(name, value)
    assert controls.values() == before


def test_unknown_actions_presets_and_places_are_refused() -> None:
    controls = Controls(LiveOptions())
    with pytest.raises(OptionError):
        controls.act("explode")
    with pytest.raises(OptionError):
        controls.take_preset("nobody")
    with pytest.raises(OptionError):
        controls.slide("strength", math.nan)
    assert controls.actions() == []


def test_a_nudge_never_goes_the_other_way() -> None:
    controls = Controls(LiveOptions(strength=3.0))  # allowed, beyond the slider
    controls.nudge("strength", 0.1)
    assert controls.values()["strength"] >= 3.0
    controls.nudge("strength", -0.1)
    assert controls.values()["strength"] < 3.0


def test_a_model_brings_its_own_layers() -> None:
    controls = Controls(LiveOptions(layers=("block9",)))
    controls.set("model", "vgg19")
    assert controls.at().layers == ()
    assert "relu5_1" in controls.table["layers"].choices


def test_eight_threads_at_once_do_no_harm() -> None:
    controls = Controls(LiveOptions(react=("strength: bass",)), signals=lambda: {"bass": 0.5})
    faults: list[object] = []

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        names = list(controls.table)
        ways: list[Callable[[], object]] = [
            lambda: controls.take_preset(chance.choice(controls.presets), chance.random()),
            lambda: controls.act(chance.choice(list(ACTIONS))),
            lambda: controls.nudge(chance.choice(names), chance.uniform(-1, 1)),
            lambda: controls.slide(chance.choice(names), chance.random()),
            controls.values,
        ]
        for _ in range(100):
            try:
                chance.choice(ways)()
            except Error:
                pass  # a layer of the network that another thread has just changed
            except Exception as fault:
                faults.append(fault)
            for options in (controls.at(), controls.at_without_signals(time.monotonic())):
                if not within(controls, options):
                    faults.append(options)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(controls.actions()) <= 64
    LiveOptions.model_validate(controls.at_without_signals(math.inf).model_dump())


# Signals


def test_all_signals_are_there_and_nothing_is_nothing() -> None:
    assert dict(Signals()()) == dict.fromkeys(SIGNALS, 0.0)
    assert Signals().bpm is None


@pytest.mark.parametrize("unsteady", [0.0, 0.02])
def test_taps_set_the_tempo(unsteady: float) -> None:
    watch, chance = Watch(), random.Random(1)
    signals = Signals(watch)
    start = watch.time
    for i in range(8):
        watch.time = start + i * 0.5 + chance.uniform(-unsteady, unsteady)
        signals.tap()
    assert signals.bpm == pytest.approx(120, rel=0.01)


def test_one_tap_that_went_wrong_does_not_matter() -> None:
    watch = Watch()
    signals = Signals(watch)
    for gap in (0.5, 0.5, 0.07, 0.43, 0.5, 0.5, 0.5):
        watch.time += gap
        signals.tap()
    assert signals.bpm == pytest.approx(120, rel=0.01)


def test_taps_long_ago_are_forgotten_but_the_beat_goes_on() -> None:
    watch = Watch()
    signals = Signals(watch)
    for _ in range(5):
        watch.time += 0.5
        signals.tap()
    watch.time += 100.2
    signals.tap()
    assert signals.bpm == pytest.approx(120)
    assert signals()["beat"] == pytest.approx(1)  # from this tap on
    watch.time += 1.0
    signals.tap()
    assert signals.bpm == pytest.approx(60)


@pytest.mark.parametrize(("gap", "bpm"), [(0.01, 300), (2.9, 30)])
def test_a_tempo_is_never_out_of_range(gap: float, bpm: float) -> None:
    watch = Watch()
    signals = Signals(watch)
    for _ in range(4):
        watch.time += gap
        signals.tap()
    assert signals.bpm == pytest.approx(bpm)


def test_a_beat_is_one_on_the_beat_and_falls_until_the_next() -> None:
    watch = Watch()
    signals = Signals(watch)
    for _ in range(4):
        watch.time += 0.5
        signals.tap()
    start = watch.time
    for beat in range(50):
        seen = []
        for part in (0.001, 0.1, 0.3, 0.49):
            watch.time = start + beat * 0.5 + part
            seen.append(signals()["beat"])
        assert seen == sorted(seen, reverse=True)
        assert seen[0] > 0.98
        assert seen[-1] < 0.01


@pytest.mark.parametrize("bpm", [60, 128.5, 200])
def test_a_midi_clock_sets_tempo_and_beat(bpm: float) -> None:
    watch, chance = Watch(), random.Random(2)
    signals = Signals(watch)
    start, tick = watch.time, 60 / bpm / 24
    signals.downbeat()
    for i in range(24 * 8 + 1):
        watch.time = start + i * tick
        signals.clock(watch.time + chance.uniform(0, 0.002))
    assert signals.bpm == pytest.approx(bpm, rel=0.01)
    beat = signals()["beat"]
    assert min(beat, 1 - beat) < 0.03  # this tick was a beat; it may have come a moment late
    watch.time += 12 * tick
    assert signals()["beat"] == pytest.approx(0.25, abs=0.03)


def test_a_clock_that_paused_may_go_on_at_another_tempo() -> None:
    watch = Watch()
    signals = Signals(watch)
    for gap in [60 / 90 / 24] * 60 + [7.0] + [60 / 150 / 24] * 10:
        watch.time += gap
        signals.clock()
    assert signals.bpm == pytest.approx(150, rel=0.01)


def test_a_clock_that_begins_anew_begins_with_a_beat() -> None:
    watch = Watch()
    signals = Signals(watch)
    for _ in range(24 * 4 + 7):
        watch.time += 0.02
        signals.clock()
    signals.downbeat()
    watch.time += 0.02
    signals.clock()
    assert signals()["beat"] == pytest.approx(1)


def test_movement_comes_fast_and_goes_slowly() -> None:
    watch = Watch()
    signals = Signals(watch)
    signals.movement(1.0)
    watch.time += 0.05
    assert signals()["motion"] > 0.95
    signals.movement(0.0)
    watch.time += 0.05
    assert 0.6 < signals()["motion"] < 0.95
    watch.time += 1.0
    assert signals()["motion"] < 0.05


@pytest.mark.parametrize("value", [-1.0, 7.0, math.nan])
def test_movement_stays_between_nothing_and_all(value: float) -> None:
    watch = Watch()
    signals = Signals(watch)
    for _ in range(20):
        signals.movement(value)
        watch.time += 0.03
        assert 0 <= signals()["motion"] <= 1


def test_what_nobody_renews_falls_to_nothing() -> None:
    watch = Watch()
    signals = Signals(watch)
    signals.movement(1.0)
    signals.heard({"level": 1.0, "bass": 0.5})
    watch.time += 0.5
    assert signals()["level"] == 1.0
    assert signals()["bass"] == 0.5
    watch.time += 5
    assert signals()["level"] < 0.01
    assert signals()["motion"] < 0.01


# Sound


def tone(pitch: float, seconds: float = 3.0, amplitude: float = 0.5, rate: int = RATE) -> Any:
    t = np.arange(int(rate * seconds)) / rate
    return (amplitude * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


def clicks(
    seconds: float = 8.0, amplitude: float = 0.8, bpm: float = 120
) -> tuple[Any, list[float]]:
    chance = np.random.default_rng(3)
    found = np.zeros(int(seconds * RATE), np.float32)
    times = np.arange(0.25, seconds - 0.1, 60 / bpm).tolist()
    for at in times:
        n = RATE // 200
        place = int(at * RATE)
        found[place : place + n] += amplitude * chance.standard_normal(n) * np.hanning(n)
    return found, times


def music(amplitude: float) -> tuple[Any, list[float]]:
    """Drums on every beat over a soft chord and some hiss."""
    found, times = clicks(amplitude=0.3)
    for at in times:
        place, t = int(at * RATE), np.arange(RATE // 5) / RATE
        found[place : place + len(t)][: len(t)] += np.exp(-15 * t) * np.sin(2 * np.pi * 60 * t)
    for pitch in (330, 415, 494):
        found += tone(pitch, 8.0, 0.1)
    found += 0.01 * np.random.default_rng(4).standard_normal(len(found))
    return (amplitude * found / np.abs(found).max()).astype(np.float32), times


def listened(samples: Any, rate: float = RATE) -> tuple[Any, list[float]]:
    """Values of every piece of 256 samples, (n, 5), and the times of onsets."""
    analysis, values, onsets = Analysis(rate), [], []
    for i in range(0, len(samples), 256):
        before = analysis.onsets
        values.append(list(analysis.hear(samples[i : i + 256]).values()))
        if analysis.onsets > before:
            onsets.append((i + 256) / rate)
    return np.array(values), onsets


TONES = [(60, 1), (100, 1), (700, 2), (1500, 2), (5000, 3), (8000, 3)]
RATES = [8000, 16000, 44100, 48000, 96000, 192000]


@pytest.mark.parametrize(
    ("pitch", "band", "rate"),
    [(pitch, band, rate) for pitch, band in TONES for rate in RATES if pitch < rate * 0.45],
)
def test_a_tone_is_heard_in_its_band_steadily(pitch: float, band: int, rate: int) -> None:
    values, onsets = listened(tone(pitch, rate=rate), rate)
    late = values[len(values) // 2 :]
    assert late[:, band].min() > 0.9
    assert late[:, band].std() < 0.01
    others = [i for i in (1, 2, 3) if i != band]
    assert late[:, others].max() < 0.5
    assert len(onsets) <= 1  # its beginning


@pytest.mark.parametrize("amplitude", [0.0, 0.0005])
def test_silence_is_nothing(amplitude: float) -> None:
    hiss = amplitude * np.random.default_rng(0).standard_normal(RATE * 3)
    for samples in (hiss.astype(np.float32), (hiss + 0.3).astype(np.float32)):
        values, onsets = listened(samples)
        assert values.max() < 0.02
        assert onsets == []


@pytest.mark.parametrize("amplitude", [0.8, 0.08, 0.02])
def test_clicks_are_onsets_as_many_as_there_are(amplitude: float) -> None:
    samples, times = clicks(amplitude=amplitude)
    _, onsets = listened(samples)
    assert len(onsets) == len(times)
    assert max(abs(o - t) for o, t in zip(onsets, times, strict=True)) < 0.05


@pytest.mark.parametrize("amplitude", [0.9, 0.09, 0.02])
def test_drums_in_music_are_onsets(amplitude: float) -> None:
    samples, times = music(amplitude)
    values, onsets = listened(samples)
    hits = sum(any(abs(o - t) < 0.05 for o in onsets) for t in times)
    assert hits == len(times)
    assert len(onsets) <= len(times) + 1
    bass = values[len(values) // 2 :, 1]
    assert bass.max() > 0.9
    assert bass.min() < 0.7  # it moves


def test_clicks_too_soft_to_hear_are_no_onsets() -> None:
    values, onsets = listened(clicks(amplitude=0.002)[0])
    assert onsets == []
    assert values.max() < 0.02


def test_onsets_keep_their_distance() -> None:
    samples, _ = clicks(bpm=60 / 0.03)  # every 30 ms
    _, onsets = listened(samples)
    assert np.diff(onsets).min() > 0.09


def test_noise_is_no_onset() -> None:
    noise = 0.2 * np.random.default_rng(5).standard_normal(RATE * 5)
    _, onsets = listened(noise.astype(np.float32))
    assert onsets == []


def test_ten_times_as_soft_is_as_much() -> None:
    loud, _ = listened(music(0.9)[0])
    soft, _ = listened(music(0.09)[0])
    half = len(loud) // 2
    assert np.abs(loud[half:].mean(0) - soft[half:].mean(0)).max() < 0.15
    assert np.abs(loud[half:, :2] - soft[half:, :2]).max() < 0.1


def test_the_gain_comes_back_after_something_loud() -> None:
    samples = np.concatenate([tone(100, 3, 0.9), tone(100, 12, 0.09)])
    values, _ = listened(samples)
    bass = values[:, 1]
    second = len(bass) / 15
    assert bass[int(3.9 * second)] < 0.7
    assert bass[-1] > 0.95


def test_the_pieces_do_not_matter() -> None:
    samples, _ = music(0.5)
    whole = Analysis(RATE).hear(samples)
    pieces, analysis, place, last = random.Random(6), Analysis(RATE), 0, {}
    while place < len(samples):
        size = pieces.randrange(0, 5000)
        last = analysis.hear(samples[place : place + size])
        place += size
    assert last == pytest.approx(whole)


def test_broken_samples_are_survived() -> None:
    analysis = Analysis(RATE)
    bad = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38] * 2000, np.float32)
    assert all(0 <= v <= 1 for v in analysis.hear(bad).values())
    values = analysis.hear(tone(100, 15))
    assert values["bass"] > 0.9
    bad, zeros = np.tile(np.array([np.nan, np.inf], np.float32), 9000), np.zeros(18000, np.float32)
    click = clicks(1.0)[0]
    after = [np.concatenate([silence, click]) for silence in (bad, zeros)]
    assert listened(after[0])[1] == listened(after[1])[1] != []


def write_wave(path: Path, samples: Any) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.mark.alone
def test_a_file_is_heard_in_real_time_over_and_over(tmp_path: Path) -> None:
    half = np.concatenate([tone(100, 0.5, 0.8), np.zeros(RATE // 2, np.float32)])
    path, told, signals = write_wave(tmp_path / "half: on.wav", half), [], Signals()
    heard = Sound(str(path), signals, told.append)
    begun = time.monotonic()
    turns: list[float] = []
    try:
        high = False
        while time.monotonic() < begun + 3.4:
            bass = signals()["bass"]
            assert signals()["treble"] < 0.5
            if bass > 0.8 and not high:
                turns.append(time.monotonic() - begun)
                high = True
            high = high and bass > 0.5
            time.sleep(0.01)
    finally:
        begun = time.monotonic()
        heard.close()
    assert time.monotonic() - begun < 1
    assert len(turns) in (3, 4)
    assert np.diff(turns) == pytest.approx(1.0, abs=0.2)
    assert told == []
    assert own_threads() == []


def test_sound_of_a_video_is_heard(tmp_path: Path) -> None:
    film = Film(languages=("eng",), sound_seconds=1.0).write(tmp_path / "film.mp4")
    signals = Signals()
    heard = Sound(str(film), signals, lambda line: None)
    try:
        assert until(lambda: signals()["level"] > 0.2)
    finally:
        heard.close()


def test_a_file_that_goes_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "SHORTEST", 0.05)
    path, told = write_wave(tmp_path / "a.wav", tone(100, 0.1)), []
    heard = Sound(str(path), Signals(), told.append)
    try:
        path.rename(tmp_path / "b.wav")
        assert until(lambda: heard.trouble)
        time.sleep(0.5)
        (tmp_path / "b.wav").rename(path)
        assert until(lambda: not heard.trouble)
    finally:
        heard.close()
    assert len(told) == 2
    assert told[1].endswith("goes on")


def test_files_without_sound_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("la la la")
    silent = Film().write(tmp_path / "silent.mp4")
    write_wave(tmp_path / "empty.wav", np.zeros(0))
    names = [tmp_path / "none.wav", tmp_path / "text.wav", silent, tmp_path / "empty.wav", tmp_path]
    for name in names:
        with pytest.raises(SourceError) as fault:
            Sound(str(name), Signals(), lambda line: None)
        assert "\n" not in str(fault.value)
    assert own_threads() == []


class Microphones:
    """Stands for the sounddevice library, with microphones that can be pulled out."""

    def __init__(self) -> None:
        self.plugged = True
        self.open: list[Any] = []
        self.default = types.SimpleNamespace(device=(1, -1))

    def _terminate(self) -> None: ...

    def _initialize(self) -> None: ...

    def query_devices(self) -> list[dict[str, Any]]:
        names = ["Monitor", "USB Microphone"] if self.plugged else ["Monitor"]
        return [
            {
                "index": i,
                "name": name,
                "max_input_channels": 2 * i,
                "default_samplerate": 48000.0,
            }
            for i, name in enumerate(names)
        ]

    def InputStream(self, **given: Any) -> Any:  # noqa: N802
        library = self

        class Stream:
            def start(self) -> None:
                library.open.append(self)
                self.thread = threading.Thread(target=self.run)
                self.thread.start()

            def run(self) -> None:
                piece = np.stack([tone(100, 0.1)] * given["channels"], 1)
                while library.plugged and self in library.open:
                    given["callback"](piece, len(piece), None, None)
                    time.sleep(0.02)

            def abort(self) -> None: ...

            def close(self) -> None:
                library.open.remove(self)
                self.thread.join()

        return Stream()


@pytest.mark.parametrize("device", ["auto", "usb mic", "1"])
def test_a_microphone_may_go_and_come_back(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, told, signals = Microphones(), [], Signals()
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    monkeypatch.setattr(sound, "SHORTEST", 0.02)
    monkeypatch.setattr(sound, "SILENT", 0.2)
    heard = Sound(device, signals, told.append)
    try:
        assert until(lambda: signals()["bass"] > 0.8)
        library.plugged = False
        assert until(lambda: heard.trouble)
        assert until(lambda: "no such microphone" in heard.trouble)
        library.plugged = True
        assert until(lambda: not heard.trouble)
    finally:
        heard.close()
    assert len(told) == 2
    assert library.open == []
    assert own_threads() == []


def test_a_microphone_that_is_not_there_is_waited_for_without_a_word_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Microphones())
    monkeypatch.setattr(sound, "SHORTEST", 0.01)
    monkeypatch.setattr(sound, "LONGEST", 0.01)
    told: list[str] = []
    heard = Sound("Neumann", Signals(), told.append)
    time.sleep(0.5)
    heard.close()
    assert len(told) == 1
    assert "USB Microphone" in told[0]


def test_what_listens_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SourceError, match=r"streamdream\[sound\]"):
        Sound("auto", Signals(), lambda line: None)
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SourceError, match="apt install libportaudio2"):
        Sound("auto", Signals(), lambda line: None)


# OSC


@pytest.fixture
def controls() -> Controls:
    return Controls(LiveOptions(ramp=0))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def server(controls: Controls, told: list[str]) -> Iterator[Osc]:
    opened = Osc(controls, "127.0.0.1", 0, None, told.append)
    yield opened
    assert opened.running
    opened.close()
    assert not opened.running


class Client:
    """Sends by python-osc, as other programs do; or any bytes."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        from pythonosc.udp_client import SimpleUDPClient

        self.to = "127.0.0.1", port
        self.sender = SimpleUDPClient(*self.to)
        self.sender._sock.bind((host, 0))

    def send(self, address: str, *values: Any) -> None:
        self.sender.send_message(address, list(values))

    def raw(self, packet: bytes) -> None:
        self.sender._sock.sendto(packet, self.to)

    def close(self) -> None:
        self.sender.close()


def message(address: str, *values: Any) -> bytes:
    from pythonosc.osc_message_builder import build_msg

    return build_msg(address, list(values)).dgram


def bundle(*pieces: bytes, due: int = 1) -> bytes:
    inner = b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)
    return b"#bundle\0" + due.to_bytes(8, "big") + inner


@pytest.fixture
def client(server: Osc) -> Iterator[Client]:
    made = Client(int(server.address.rpartition(":")[2]))
    yield made
    made.close()


def other(control: Any, value: Any) -> Any:
    """Another value that a control can have."""
    if control.kind == "switch":
        return not value
    if control.kind in ("choice", "names"):
        return next(choice for choice in control.choices if choice != value)
    if control.kind == "whole":
        return int(control.low) if value != control.low else int(control.high)
    return control.low if value != control.low else control.high


def test_every_control_has_its_address_and_its_slide(client: Client, controls: Controls) -> None:
    for name, control in controls.table.items():
        wanted = other(control, controls.values()[name])
        client.send(f"/streamdream/{name}", wanted)
        assert until(lambda n=name, w=wanted: controls.values()[n] == pytest.approx(w)), name
        for place in (0.0, 1.0):
            client.send(f"/streamdream/slide/{name}", place)
            arrived = lambda n=name, p=place: (  # noqa: E731
                place_of(controls.table[n], controls.values()[n]) == pytest.approx(p)
            )
            assert until(arrived), name
        if name == "model":
            controls.set("model", "efficientnet-lite0")


@pytest.mark.parametrize(
    ("address", "values", "name", "result"),
    [
        ("strength", [0.5], "strength", 0.5),
        ("strength", [1], "strength", 1.0),
        ("strength", ["0.25"], "strength", 0.25),
        ("step_size", [3.0], "step-size", 3.0),
        ("octaves", [2.0], "octaves", 2),
        ("octaves", ["2"], "octaves", 2),
        ("mirror", [True], "mirror", True),
        ("mirror", [1.0], "mirror", True),
        ("mirror", ["on"], "mirror", True),
        ("flow", ["none"], "flow", "none"),
        ("view", ["split"], "view", "split"),
        ("view", [], "view", "source"),
        ("view", [1.0], "view", "source"),
        ("layers", ["block5"], "layers", "block5"),
        ("layers", ["block5,block8"], "layers", "block5,block8"),
        ("layers", ["block5", "block8"], "layers", "block5,block8"),
        ("slide/strength", [0.25], "strength", 0.5),
        ("slide/strength", [7], "strength", 2.0),
        ("slide/mirror", [1], "mirror", True),
        ("preset", ["engraving"], "layers", "block5"),
        ("next-preset", [], "layers", "block8"),
        ("next-preset", [1.0], "layers", "block8"),
    ],
)
def test_messages_of_every_kind(
    client: Client, controls: Controls, address: str, values: list[Any], name: str, result: Any
) -> None:
    client.send(f"/streamdream/{address}", *values)
    assert until(lambda: controls.values()[name] == result)


def test_actions_are_asked_for_with_or_without_a_value(client: Client, controls: Controls) -> None:
    client.send("/streamdream/snapshot")
    client.send("/streamdream/snapshot", 1.0)
    client.send("/streamdream/snapshot", 0.0)  # the button is let go
    client.send("/streamdream/blackout")
    client.send("/streamdream/blackout", 1)
    client.send("/streamdream/blackout", 0.0)
    client.send("/streamdream/freeze", True)
    found: list[tuple[str, object]] = []
    assert until(lambda: found.extend(controls.actions()) or len(found) >= 6)
    assert found == [
        ("snapshot", None),
        ("snapshot", None),
        ("blackout", None),
        ("blackout", True),
        ("blackout", False),
        ("freeze", True),
    ]


def test_bundles_count_at_once_whatever_their_time(client: Client, controls: Controls) -> None:
    inner = bundle(message("/streamdream/octaves", 2), due=2**63)
    client.raw(bundle(message("/streamdream/strength", 0.5), inner, due=2**64 - 1))
    assert until(lambda: controls.values()["octaves"] == 2)
    assert controls.values()["strength"] == 0.5


@pytest.mark.parametrize(
    ("address", "values"),
    [
        ("/streamdream/strength", [99.0]),
        ("/streamdream/strength", [math.nan]),
        ("/streamdream/strength", [math.inf]),
        ("/streamdream/strength", []),
        ("/streamdream/strength", [1.0, 2.0]),
        ("/streamdream/strength", ["\x1b[2J much"]),
        ("/streamdream/slide/strength", [math.nan]),
        ("/streamdream/slide/strength", ["half"]),
        ("/streamdream/slide/nothing", [0.5]),
        ("/streamdream/preset", ["nobody"]),
        ("/streamdream/preset", [3]),
        ("/streamdream/record", ["out.mp4"]),
        ("/streamdream/folder", ["/tmp"]),
        ("/streamdream/layers", [1, 2]),
        ("/streamdream/layers", []),
        ("/streamdream/feedback", [70000]),
        ("/streamdream/feedback", ["9000"]),
        ("/streamdream/*", [1.0]),
        ("/streamdream", [1.0]),
        ("/elsewhere/strength", [0.5]),
        ("/streamdream/feedback", [True, False]),
    ],
)
def test_what_makes_no_sense_is_told_and_changes_nothing(
    client: Client, controls: Controls, told: list[str], address: str, values: list[Any]
) -> None:
    before = controls.values()
    client.send(address, *values)
    assert until(lambda: told)
    assert len(told) == 1
    assert told[0].isprintable()
    assert controls.values() == before
    assert controls.actions() == []


def test_a_preset_is_never_a_path(
    client: Client, controls: Controls, told: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("strength = 0.1")
    client.send("/streamdream/preset", str(path))
    assert until(lambda: told)
    assert controls.values()["strength"] == 1.0


def garbage(chance: random.Random) -> bytes:
    """Noise, cut or scribbled messages, bundles that make no sense."""
    good = message("/streamdream/strength", chance.uniform(-9, 9))
    scribbled = bytearray(good)
    for _ in range(chance.randrange(1, 5)):
        scribbled[chance.randrange(len(scribbled))] = chance.randrange(256)
    nested = good
    for _ in range(chance.randrange(3, 100)):
        nested = bundle(nested)
    length = chance.choice([-4, -1, 0, 2**31 - 1]).to_bytes(4, "big", signed=True)
    tags = "".join(chance.choice("ifsbtdmrTFNI[]hcS\x00,\xff") for _ in range(9)).encode("latin-1")
    return chance.choice(
        [
            chance.randbytes(chance.randrange(300)),
            good[: chance.randrange(len(good))],
            bytes(scribbled),
            bundle() + length,
            nested,
            good + bytes(chance.randrange(4000, 9000)),
            b"/streamdream/strength\0\0\0," + tags + chance.randbytes(chance.randrange(64)),
        ]
    )


def test_garbage_leaves_the_server_alive_and_the_values_in_range(
    client: Client, controls: Controls, told: list[str]
) -> None:
    chance = random.Random(7)
    names = [*controls.table, *ACTIONS, "preset", "slide/strength", "token", "nothing"]
    values: list[Any] = [0.5, -3, 2**40, "eyes", "x" * 900, math.nan, True, False, None, 1e30]
    begun = time.monotonic()
    for i in range(2000):
        if i % 2:
            given = [chance.choice(values) for _ in range(chance.randrange(3))]
            client.raw(message(f"/streamdream/{chance.choice(names)}", *given))
        else:
            client.raw(garbage(chance))
        if i % 40 == 39:
            time.sleep(0.03)  # or the system drops most of them
            assert within(controls, controls.at())
    client.send("/streamdream/octaves", 6)
    assert until(lambda: controls.values()["octaves"] == 6)
    assert len(told) <= 1 + (time.monotonic() - begun) // osc.PATIENCE
    assert told


def test_no_packet_keeps_the_reader_busy() -> None:
    chance = random.Random(8)
    begun = time.monotonic()
    for _ in range(5000):
        try:
            for address, _values in osc.messages(garbage(chance)[: osc.LARGEST]):
                assert address.startswith("/")
        except Exception as fault:
            assert not isinstance(fault, RecursionError | MemoryError)  # noqa: PT017
    assert time.monotonic() - begun < 10


@pytest.mark.alone
def test_only_so_many_messages_a_second_are_obeyed(
    client: Client, server: Osc, controls: Controls, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def act(name: str, value: object = None) -> None:
        nonlocal count
        count += 1

    monkeypatch.setattr(osc, "MOST", 50)
    monkeypatch.setattr(controls, "act", act)
    many = bundle(*[message("/streamdream/tap")] * 100)
    begun = time.monotonic()
    while time.monotonic() < begun + 1:
        client.send("/streamdream/tap")
        client.raw(many)
        client.raw(bundle())
        time.sleep(0.01)
    assert 40 <= count <= 50 * (time.monotonic() - begun + 1.1)


def heard_by(listener: socket.socket, seconds: float = 0.5) -> list[tuple[str, list[Any]]]:
    found = []
    listener.settimeout(seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found += osc.messages(listener.recv(4096))
        except TimeoutError:
            break
    return found


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened


@pytest.mark.alone
def test_values_are_sent_back_all_at_first_then_what_changes(
    client: Client, controls: Controls, listener: socket.socket
) -> None:
    client.send("/streamdream/feedback", listener.getsockname()[1])
    first = dict(heard_by(listener))
    for name, value in controls.values().items():
        sent = int(value) if isinstance(value, bool) else value
        assert first[f"/streamdream/{name}"] == pytest.approx([sent]), name
    assert first["/streamdream/slide/strength"] == [0.5]
    assert heard_by(listener, 0.3) == []
    controls.set("strength", 0.5)
    controls.take_preset("beads")
    later = dict(heard_by(listener))
    assert later["/streamdream/layers"] == ["block8"]
    assert later["/streamdream/preset"] == ["beads"]
    assert "/streamdream/octaves" not in later
    client.send("/streamdream/feedback", 0)
    time.sleep(0.2)
    controls.set("strength", 0.75)
    assert heard_by(listener) == []


@pytest.mark.alone
def test_values_are_sent_back_at_most_twenty_times_a_second(
    client: Client, controls: Controls, listener: socket.socket
) -> None:
    client.send("/streamdream/feedback", float(listener.getsockname()[1]))
    heard_by(listener, 0.3)
    begun, i = time.monotonic(), 0
    while time.monotonic() < begun + 1:
        i += 1
        client.send("/streamdream/strength", i % 100 / 100)
        time.sleep(0.002)
    count = sum(a == "/streamdream/strength" for a, _ in heard_by(listener))
    assert 5 <= count <= 23


@pytest.mark.alone
def test_nine_listeners_are_one_too_many(client: Client, controls: Controls) -> None:
    listeners = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(9)]
    try:
        for opened in listeners:
            opened.bind(("127.0.0.1", 0))
            client.send("/streamdream/feedback", opened.getsockname()[1])
        time.sleep(0.2)
        for opened in listeners:
            heard_by(opened, 0.1)
        controls.set("strength", 0.5)
        assert [bool(heard_by(opened, 0.2)) for opened in listeners] == [False] + [True] * 8
    finally:
        for opened in listeners:
            opened.close()


@pytest.mark.alone
def test_other_machines_need_the_token(
    controls: Controls, told: list[str], listener: socket.socket
) -> None:
    with pytest.raises(OptionError, match="token"):
        Osc(controls, "0.0.0.0", 0, None, told.append)
    server = Osc(controls, "0.0.0.0", 0, "correct-horse", told.append)
    client = Client(int(server.address.rpartition(":")[2]))
    try:
        client.send("/streamdream/strength", 0.5)
        client.send("/streamdream/feedback", listener.getsockname()[1])
        client.send("/streamdream/token", "wrong-horse")
        client.send("/streamdream/token", 7)
        client.send("/streamdream/strength", 0.5)
        assert until(lambda: told)
        time.sleep(0.2)
        assert len(told) == 1  # once a minute
        assert "token" in told[0]
        assert "horse" not in told[0]
        assert controls.values()["strength"] == 1.0
        assert heard_by(listener, 0.1) == []
        client.send("/streamdream/token", "correct-horse")  # right after wrong ones: not heard
        client.send("/streamdream/strength", 0.75)
        time.sleep(1.1)
        assert controls.values()["strength"] == 1.0
        client.send("/streamdream/token", "correct-horse")
        client.send("/streamdream/strength", 0.75)
        assert until(lambda: controls.values()["strength"] == 0.75)
    finally:
        client.close()
        begun = time.monotonic()
        server.close()
    assert time.monotonic() - begun < 1


def test_a_token_is_forgotten_in_time(controls: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osc, "TRUST", 0.3)
    server = Osc(controls, "0.0.0.0", 0, "correct-horse", lambda line: None)
    client = Client(int(server.address.rpartition(":")[2]))
    try:
        client.raw(
            bundle(
                message("/streamdream/token", "correct-horse"),
                message("/streamdream/strength", 0.5),
            )
        )
        assert until(lambda: controls.values()["strength"] == 0.5)
        time.sleep(0.4)
        client.send("/streamdream/strength", 0.75)
        time.sleep(0.2)
        assert controls.values()["strength"] == 0.5
    finally:
        client.close()
        server.close()


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_the_oldest_of_too_many_clients_is_forgotten(
    controls: Controls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(osc, "TRUSTED", 3)
    server = Osc(controls, "0.0.0.0", 0, "correct-horse", lambda line: None)
    port = int(server.address.rpartition(":")[2])
    clients = [Client(port, f"127.0.0.{i}") for i in range(1, 5)]
    try:
        for client in clients:
            client.send("/streamdream/token", "correct-horse")
        for i, client in enumerate(clients):
            client.send("/streamdream/octaves", i + 2)
            time.sleep(0.1)
            assert controls.values()["octaves"] == (4 if i == 0 else i + 2)
    finally:
        for client in clients:
            client.close()
        server.close()


def test_addresses_that_cannot_be_are_refused_in_one_line(server: Osc, controls: Controls) -> None:
    taken = int(server.address.rpartition(":")[2])
    for host, port in (("127.0.0.1", taken), ("192.0.2.1", 0), ("no such host", 0)):
        with pytest.raises(OptionError) as fault:
            Osc(controls, host, port, "correct-horse", lambda line: None)
        assert "\n" not in str(fault.value)
    assert own_threads() == ["streamdream-osc"]


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_works_as_well(controls: Controls) -> None:
    try:
        server = Osc(controls, "::1", 0, None, lambda line: None)
    except OptionError:
        pytest.skip("no IPv6 here")
    port = int(server.address.rpartition(":")[2])
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
        opened.sendto(message("/streamdream/strength", 0.5), ("::1", port))
        assert until(lambda: controls.values()["strength"] == 0.5)
    server.close()
    assert own_threads() == []


def test_opening_and_closing_leaves_nothing_behind(controls: Controls) -> None:
    Osc(controls, "127.0.0.1", 0, None, lambda line: None).close()
    before = descriptors()
    begun = time.monotonic()
    for _ in range(100):
        server = Osc(controls, "127.0.0.1", 0, None, lambda line: None)
        server.close()
        server.close()
    assert time.monotonic() - begun < 10
    assert descriptors() == before
    assert own_threads() == []


# MIDI


def knob(number: int, value: int, channel: int = 0) -> Any:
    mido = pytest.importorskip("mido")
    return mido.Message("control_change", channel=channel, control=number, value=value)


def hit(number: int, velocity: int = 100, channel: int = 0) -> Any:
    mido = pytest.importorskip("mido")
    return mido.Message("note_on", channel=channel, note=number, velocity=velocity)


def desk(controls: Controls, **bindings: str) -> Desk:
    """`c7` is controller 7 and `n60` note 60 of channel 1."""
    kinds: Any = {"c": "controller", "n": "note"}
    return Desk(controls, {Key(kinds[k[0]], 1, int(k[1:])): v for k, v in bindings.items()})


def test_a_knob_takes_over_only_when_it_passes_the_value(controls: Controls) -> None:
    made = desk(controls, c7="strength")  # which is 1, the middle of its slider
    for value in (0, 20, 40, 60):
        made.take(knob(7, value))
        assert controls.values()["strength"] == 1.0
    made.take(knob(7, 80))  # past it
    assert controls.values()["strength"] == pytest.approx(2 * 80 / 127)
    made.take(knob(7, 10))
    assert controls.values()["strength"] == pytest.approx(2 * 10 / 127)
    controls.set("strength", 1.5)  # by another hand
    made.take(knob(7, 12))
    assert controls.values()["strength"] == 1.5
    made.take(knob(7, 127))
    assert controls.values()["strength"] == 2.0


def test_a_knob_that_stands_at_the_value_takes_over_at_once(controls: Controls) -> None:
    made = desk(controls, c7="strength")
    made.take(knob(7, 64))
    assert controls.values()["strength"] == pytest.approx(2 * 64 / 127)


@pytest.mark.parametrize("name", list(Controls(LiveOptions()).table))
def test_a_knob_reaches_both_ends_of_every_control(name: str, controls: Controls) -> None:
    made = desk(controls, c7=name)
    for value in (0, 127, 0, *range(0, 128, 5), 127):
        made.take(knob(7, value))
    assert place_of(controls.table[name], controls.values()[name]) == pytest.approx(1)
    for value in range(127, -1, -1):
        made.take(knob(7, value))
    assert place_of(controls.table[name], controls.values()[name]) == pytest.approx(0)


def test_a_key_does_its_action_once(controls: Controls) -> None:
    mido = pytest.importorskip("mido")
    made = desk(controls, n60="snapshot", c20="blackout")
    made.take(hit(60))
    made.take(hit(60, 0))
    made.take(mido.Message("note_off", note=60))
    made.take(hit(61))
    made.take(hit(60, channel=3))
    assert controls.actions() == [("snapshot", None)]
    for value in (127, 127, 50, 90, 0, 127, 0):  # a button that sends a controller
        made.take(knob(20, value))
    assert controls.actions() == [("blackout", None)] * 2


def test_a_key_steps_choices_and_switches(controls: Controls) -> None:
    made = desk(controls, n1="mirror", n2="gate", n3="view", n4="strength")
    made.take(hit(1))
    assert controls.values()["mirror"] is True
    made.take(hit(1))
    assert controls.values()["mirror"] is False
    made.take(hit(2))
    assert controls.values()["gate"] == "still"
    made.take(hit(3))
    assert controls.values()["view"] == "source"
    made.take(hit(4, 127))
    assert controls.values()["strength"] == 2.0


def test_a_clock_beats_time(controls: Controls) -> None:
    mido = pytest.importorskip("mido")
    signals = Signals()
    made = Desk(controls, signals=signals)
    made.take(mido.Message("start"), 0.0)
    for i in range(100):
        made.take(mido.Message("clock"), i * 60 / 140 / 24)
    assert signals.bpm == pytest.approx(140)


def test_learning_binds_what_is_moved_next(controls: Controls) -> None:
    made = desk(controls, c7="strength")
    made.learning = "memory"
    assert made.take(hit(60, 0)) is None
    assert made.take(knob(9, 3, channel=4)) == Key("controller", 5, 9)
    assert made.learning is None
    made.learning = "strength"
    assert made.take(hit(50)) == Key("note", 1, 50)
    assert made.bindings == {Key("controller", 5, 9): "memory", Key("note", 1, 50): "strength"}
    made.learning = "snapshot"
    made.take(knob(9, 127, channel=4))
    assert made.bindings[Key("controller", 5, 9)] == "snapshot"
    assert controls.actions() == []  # it was only learned


def test_random_bytes_harm_nothing(controls: Controls) -> None:
    mido = pytest.importorskip("mido")
    names = [*controls.table, *ACTIONS]
    made = Desk(controls, {}, Signals())
    for i in range(128):
        made.bindings[Key("controller", i % 16 + 1, i)] = names[i % len(names)]
        made.bindings[Key("note", i % 16 + 1, i)] = names[-i % len(names)]
    parser = mido.Parser()
    parser.feed(random.Random(9).randbytes(60_000))
    count = 0
    for count, got in enumerate(parser):
        made.take(got, count / 1000)
    assert count > 1000
    assert within(controls, controls.at())


def test_what_was_learned_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "midi.toml"
    assert midi.read(file) == {}
    names = [*Controls(LiveOptions()).table, *ACTIONS]
    bindings = {}
    for i, name in enumerate(names):
        bindings[Key("note" if i % 2 else "controller", i % 16 + 1, i * 3 % 128)] = name
    midi.write(file, bindings)
    midi.write(file, bindings)
    assert midi.read(file) == bindings
    assert [p.name for p in file.parent.iterdir()] == ["midi.toml"]


BROKEN = [
    b"\xff\xfe\x00rubbish",
    b"[[binding",
    b"binding = 3",
    b"binding = ['a']",
    b"[binding]\nchannel = 1",
    b"[[binding]]\nchannel = 1\ncontroller = 5",
    b"[[binding]]\nchannel = 99\ncontroller = 5\ncontrol = 'strength'",
    b"[[binding]]\nchannel = 1\ncontroller = 128\ncontrol = 'strength'",
    b"[[binding]]\nchannel = 'x'\ncontroller = 5\ncontrol = 'strength'",
    b"[[binding]]\nchannel = 1\ncontroller = [5]\ncontrol = 'strength'",
    b"[[binding]]\nchannel = 1\ncontroller = 5\ncontrol = 7",
    b"[[binding]]\nchannel = 1\ncontroller = 5\ncontrol = 'a\"\\nb'",
    b"a = " + b"[" * 5000,
]


class Controllers:
    """Stands for what mido finds on the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mido = pytest.importorskip("mido")
        pytest.importorskip("rtmidi")
        self.names = ["Midi Through:Midi Through Port-0 14:0"]
        self.open: list[Any] = []
        self.fault: Exception | None = None
        monkeypatch.setattr(midi, "LOOK", 0.03)
        monkeypatch.setattr(midi, "NO_MIDI", 0.03)
        monkeypatch.setattr(mido, "get_input_names", self.get_input_names)
        monkeypatch.setattr(mido, "open_input", self.open_input)

    def get_input_names(self) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return list(self.names)

    def open_input(self, name: str, callback: Callable[[Any], None]) -> Any:
        if name not in self.names:
            raise OSError(f"unknown port {name!r}")
        port = types.SimpleNamespace(name=name, send=callback)
        port.close = lambda: self.open.remove(port)
        self.open.append(port)
        return port


@pytest.fixture
def plugs(monkeypatch: pytest.MonkeyPatch) -> Controllers:
    return Controllers(monkeypatch)


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_told_and_set_aside(
    content: bytes, tmp_path: Path, controls: Controls, told: list[str], plugs: Controllers
) -> None:
    file = tmp_path / "midi.toml"
    file.write_bytes(content)
    plugs.names.append("nanoKONTROL2 20:0")
    made = Midi(controls, "auto", file, told.append)
    try:
        assert len(told) == 1 or "listens" in told[1]
        assert "midi.toml" in told[0]
        assert "\n" not in told[0]
        assert (tmp_path / "midi.toml.broken").read_bytes() == content
        made.learn("strength")
        assert until(lambda: plugs.open)
        plugs.open[0].send(knob(3, 5))
        assert until(lambda: made.learning is None)
        assert until(file.exists)
    finally:
        made.close()
    assert midi.read(file) == {Key("controller", 1, 3): "strength"}


def test_a_controller_may_go_and_come_back(
    tmp_path: Path, controls: Controls, told: list[str], plugs: Controllers
) -> None:
    file = tmp_path / "midi.toml"
    midi.write(file, {Key("controller", 1, 7): "strength", Key("note", 1, 60): "snapshot"})
    made = Midi(controls, "KONTROL", file, told.append)
    try:
        assert until(lambda: told)
        time.sleep(0.2)
        assert len(told) == 1
        for i in range(3):
            plugs.names.append(f"nanoKONTROL2 2{i}:0")
            assert until(lambda: plugs.open)
            plugs.open[0].send(hit(60))
            asked: list[Any] = []
            assert until(lambda a=asked: a.extend(controls.actions()) or a)
            plugs.names.pop()
            assert until(lambda: not plugs.open)
        assert made.port is None
        plugs.fault = SystemError("no sequencer")
        assert until(lambda: "no sequencer" in told[-1])
        count = len(told)
        time.sleep(0.2)
        assert len(told) == count
        plugs.fault = None
        plugs.names.append("nanoKONTROL2 20:0")
        assert until(lambda: plugs.open)
        plugs.open[0].send(knob(7, 64))
        assert until(lambda: controls.values()["strength"] == pytest.approx(2 * 64 / 127))
    finally:
        begun = time.monotonic()
        made.close()
    assert time.monotonic() - begun < 1
    assert plugs.open == []
    assert own_threads() == []


def test_auto_takes_the_first_that_something_is_plugged_into(
    tmp_path: Path, controls: Controls, told: list[str], plugs: Controllers
) -> None:
    plugs.names.append("Launchpad")
    made = Midi(controls, "auto", tmp_path / "m.toml", told.append)
    assert until(lambda: made.port == "Launchpad")
    made.close()
    assert made.port is None


def test_learning_is_kept_given_up_and_refused(
    tmp_path: Path, controls: Controls, told: list[str], plugs: Controllers
) -> None:
    plugs.names.append("Launchpad")
    file = tmp_path / "m.toml"
    made = Midi(controls, "launch", file, told.append)
    try:
        assert until(lambda: plugs.open)
        with pytest.raises(OptionError, match="did you mean strength"):
            made.learn("strenght")
        made.learn("memory")
        assert made.learning == "memory"
        made.learn(None)
        assert made.learning is None
        plugs.open[0].send(knob(1, 1))
        time.sleep(0.2)
        made.learn("blackout")
        plugs.open[0].send(hit(36))
        assert until(lambda: "blackout" in told[-1])
        assert dict(made.bindings) == midi.read(file) == {Key("note", 1, 36): "blackout"}
    finally:
        made.close()


def test_what_cannot_be_written_is_told_and_works_all_the_same(
    tmp_path: Path, controls: Controls, told: list[str], plugs: Controllers
) -> None:
    (tmp_path / "file").write_text("not a folder")
    plugs.names.append("Launchpad")
    made = Midi(controls, "auto", tmp_path / "file" / "midi.toml", told.append)
    try:
        assert until(lambda: plugs.open)
        made.learn("snapshot")
        plugs.open[0].send(hit(36))
        plugs.open[0].send(hit(36))
        assert until(lambda: any("cannot be kept" in line for line in told))
        assert until(lambda: controls.actions() == [("snapshot", None)])
    finally:
        made.close()


def test_without_any_midi_it_still_opens_and_closes(tmp_path: Path, controls: Controls) -> None:
    pytest.importorskip("rtmidi")
    before = descriptors()
    for _ in range(20):
        Midi(controls, "nobody has this", tmp_path / "m.toml", lambda line: None).close()
    assert own_threads() == []
    assert descriptors() <= before + 2


def test_mido_may_be_missing(
    tmp_path: Path, controls: Controls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rtmidi", None)
    with pytest.raises(OptionError, match=r"streamdream\[midi\]"):
        Midi(controls, "auto", tmp_path / "m.toml", lambda line: None)


def test_the_file_lies_where_settings_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    assert midi.mapping_file() == tmp_path / "streamdream" / "midi.toml"


def test_a_schedule_typed_over_a_preset_stays_when_another_is_taken(tmp_path: Path) -> None:
    preset = tmp_path / "calm.toml"
    preset.write_text("step-size = 1.5")
    controls = Controls(made(LiveOptions, {"step_size": "0: 1.5, 60s: 6"}), str(preset))
    controls.take_preset("eyes", 0)
    assert "step_size" in controls.goal.schedules
