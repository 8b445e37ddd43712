"""What a real step allocates, from the record of torch's profiler."""

from __future__ import annotations

from torch.profiler import ProfilerActivity, profile


def peak_of(model, step):
    """The most bytes that were allocated at once while a real step ran, from the profiler's own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
