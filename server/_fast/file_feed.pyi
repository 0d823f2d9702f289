"""Python face of filling a pipe from a file, see file_feed.pyx."""

def feed(source: int, output: int, begun: int, may_splice: bool = True) -> int:
    """Writes the file `source` to the pipe `output` and closes that: what went wrong as an errno, or 0, also when
    nobody reads any more. begun: an eventfd that is raised as soon as this needs the interpreter's lock no more.
    """
