"""Launcher ``inline``: this process, one piece of work after the other. A debugger works; isolation does not."""

from mmexp.sweeping.workers.task import Outcome, Work, do_work


class InlineLauncher:
    """Work is done when ``submit`` returns."""

    slots = 1
    keeps_code = True

    def prepare(self, num_threads: int | None) -> None:
        pass

    def submit(self, work: Work) -> Outcome:
        return do_work(work.task_file)

    def poll(self, handle: Outcome) -> Outcome | None:
        return handle

    def cancel(self, handle: Outcome) -> None:
        pass

    def close(self) -> None:
        pass
