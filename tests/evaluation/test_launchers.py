"""Which process this is, by launchers' variables and a stand-in for the metadata."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from diffjax.errors import DiffjaxError
from diffjax.evaluation.launchers import launched
from diffjax.runs.sharing import Share

NOWHERE = {"GCE_METADATA_IP": "127.0.0.1:9"}  # nothing answers there


@pytest.mark.parametrize(
    ("environ", "share"),
    [
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}, Share(3, 8)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, Share(0, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Share(1, 2)),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c"}, Share(1, 3)),
        (
            {
                "TPU_WORKER_ID": "1",
                "TPU_WORKER_HOSTNAMES": "a,b",
                "MEGASCALE_SLICE_ID": "2",
                "MEGASCALE_NUM_SLICES": "4",
            },
            Share(5, 8),
        ),
    ],
)
def test_launchers(environ, share):
    assert launched(environ) == share


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (NOWHERE, "no Slurm, Open MPI, MPICH step and no TPU pod"),
        # in the batch script, outside of srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", **NOWHERE}, "Nothing tells"),
        ({"PMI_RANK": "one", "PMI_SIZE": "2"}, "'one' of '2'"),
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, "Process 2 of 2 cannot be"),
    ],
)
def test_what_does_not_tell(environ, message):
    with pytest.raises(DiffjaxError, match=message):
        launched(environ)


class Metadata(BaseHTTPRequestHandler):
    answers = {  # noqa: RUF012
        "agent-worker-number": "2",
        "worker-network-endpoints": "u:8470:10.0.0.1,u:8470:10.0.0.2,u:8470:10.0.0.3",
    }

    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        folder, _, name = self.path.rpartition("/")
        assert folder == "/computeMetadata/v1/instance/attributes"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answers[name].encode())

    def log_message(self, *_):
        pass


def test_a_tpu_pod_without_kubernetes():
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            environ = {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}
            assert launched(environ) == Share(2, 3)
        finally:
            server.shutdown()
            thread.join()
