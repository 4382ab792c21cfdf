"""gunicorn's threads, shared fairly by those who keep their connections."""

import socket
from concurrent.futures import Future

from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

SILENT_SECONDS = 30


class FairThreads(ThreadWorker):
    """A worker whose threads are all at work leaves new connections to its siblings; who says nothing holds no thread.

    Browsers keep a connection for as long as they use it, so the worker that accepts one answers it from then on: one
    that takes whatever comes can end up with everybody, while another one idles. And they open spare ones, for which
    gunicorn would have a thread wait five seconds.
    """

    def init_process(self) -> None:
        # Linux hands a connection over with its first request, so that one about to ask counts as work at once.
        for listener in self.sockets:
            if hasattr(socket, "TCP_DEFER_ACCEPT") and listener.FAMILY != socket.AF_UNIX:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_SECONDS)
        super().init_process()

    @property
    def worker_connections(self) -> int:
        """How many connections there may be before no more are accepted: the loop of `run` asks each time around."""
        at_work = self.nr_conns - len(self.keepalived_conns) - len(self.pending_conns)
        return self.cfg.worker_connections if at_work < self.cfg.threads else 0

    @worker_connections.setter
    def worker_connections(self, configured: int) -> None:
        """What gunicorn sets is read from its configuration."""

    def enqueue_req(self, conn: TConn) -> None:
        """To a thread, as soon as there is something to read."""
        if conn.initialized or conn.wait_for_data(0):
            super().enqueue_req(conn)
        else:
            silent: Future[object] = Future()
            silent.set_result(_DEFER)  # what a thread says when it has waited in vain
            self.finish_request(conn, silent)

    def _cap_keepalive(self, deadline: float) -> None:
        """When the worker stops, who has said nothing is waited for no longer than who had an answer."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
