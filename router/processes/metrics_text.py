"""Prometheus's text of several processes as one, each series with the label `process`."""

from collections.abc import Iterator, Mapping

_UP = "# HELP hybrid_process_up Whether a process of this router said what it counts\n# TYPE hybrid_process_up gauge\n"


def join_metrics(pages: Mapping[int, bytes | None]) -> bytes:
    """One page; None: of a process that did not answer.

    Series are not added up: a process that dies takes its counts with it, and only where each has a series of its own
    does Prometheus see that as a restart and not as one of all. `sum without (process)` adds up.
    """
    heads: dict[str, str] = {}
    series: dict[str, list[str]] = {}
    for index, page in pages.items():
        for name, head, lines in _families((page or b"").decode()):
            heads.setdefault(name, head)
            series.setdefault(name, []).extend(_label(line, index) for line in lines)
    up = "".join(f'hybrid_process_up{{process="{index}"}} {int(page is not None)}\n' for index, page in pages.items())
    return (_UP + up + "".join(heads[name] + "".join(series[name]) for name in heads)).encode()


def _families(page: str) -> Iterator[tuple[str, str, list[str]]]:
    """Each family's name, its comments, and its lines."""
    name, head, lines = "", "", list[str]()
    for line in page.splitlines(keepends=True):
        if line.startswith("# HELP "):
            if name:
                yield name, head, lines
            name, head, lines = line.split(" ", 3)[2], line, []
        elif line.startswith("#"):
            head += line
        else:
            lines.append(line)
    if name:
        yield name, head, lines


def _label(line: str, index: int) -> str:
    """No metric's name has a brace or a space in it; what stands first ends it."""
    end = min(at for at in (line.find("{"), line.find(" ")) if at >= 0)
    rest = line[end:]
    if rest.startswith("{"):
        return f'{line[:end]}{{process="{index}",{rest[1:]}'
    return f'{line[:end]}{{process="{index}"}}{rest}'
