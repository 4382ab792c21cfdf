"""Progress messages and results of the benchmark."""

from typing import Any

LATENCIES = ("next", "submit", "submit_with_next", "label")


def say(sentence: str) -> None:
    print(f"… {sentence}", flush=True)


def result(name: str, ours: float, peer: float | None, unit: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "unit": unit, "ratio": ours / peer if peer else None, **more}


def show(found: dict[str, Any]) -> None:
    peer = f" : {found['peer']:9.1f}" if found["peer"] is not None else " " * 12
    ratio = f"{found['ratio']:7.2f} ×" if found["ratio"] is not None else ""
    print(f"{found['name']:16} {found['ours']:9.2f}{peer} {found['unit']:10} {ratio}", flush=True)
    for side in ("ours", "peer"):
        if details := found.get(f"details_{side}"):
            print(f"    {side}: {_sentence(details)}", flush=True)
            for text in details.get("error_texts", ()):
                print(f"      {text}", flush=True)


def _sentence(details: dict[str, Any]) -> str:
    """Return the details as text: latencies as p50/p95/p99 in milliseconds, then the rest."""
    if "labels_per_s" not in details:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in details.items() if value != [])
    waits = [
        f"{kind.replace('_', ' ')} " + "/".join(f"{details[f'{kind}_{share}']:.0f}" for share in ("p50", "p95", "p99"))
        for kind in LATENCIES
        if f"{kind}_p50" in details
    ]
    return (
        f"{', '.join(waits)} ms; apart {details['labels_per_s_apart']:.1f} labels/s; "
        f"doubled {details['doubled']}, errors {details['errors']}, {details['worker_megabytes']:.0f} MB a worker"
    )
