"""How a program tells of its course."""

import sep.program
from sep.program import Pace


def test_a_run_tells_its_pace_every_five_seconds_and_at_its_end(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(sep.program.time, "monotonic", lambda: clock[0])
    pace = Pace(8)
    for step in range(1, 9):
        clock[0] += 2.0
        pace.tell(step, f"judge: step {step}", now=step == 4)
    assert pace.seconds == 16
    assert capsys.readouterr().out.splitlines() == [
        "judge: step 3  2.00 s/step  10 s to go",  # 6 s have passed
        "judge: step 4  2.00 s/step  8 s to go",  # asked for
        "judge: step 7  2.00 s/step  2 s to go",  # 6 s since that
        "judge: step 8  2.00 s/step  0 s to go",  # the end
    ]
