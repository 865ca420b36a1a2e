"""Which worker runs which tests."""

from xdist.scheduler import LoadGroupScheduling


class FilesTogether(LoadGroupScheduling):
    """A file's tests go to one worker, and so do those of a group.

    What they share, a model or a server, is then made once and not by every worker.
    """

    def _split_scope(self, nodeid: str) -> str:
        group = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if group == nodeid else group
