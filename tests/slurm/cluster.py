"""A real SLURM on one machine, for tests: slurmctld, four slurmd, accounting, pretended GPUs, a preemptible partition.

For Debian and Ubuntu, as root. `python tests/slurm/cluster.py` keeps a cluster up until Ctrl-C, and prints what to
export to use it; with `--install` it only installs what is missing, or says why there can be none here. All of a
cluster's state is in one temporary directory; nothing listens but on 127.0.0.1, for which the daemons run under a host
name of their own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
ACCOUNTING_PACKAGES = ("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server-core", "mariadb-client-core")
NODES = ("n1", "n2", "n3", "n4")
GPU_NODES = ("n1", "n2")
GPUS = 2
CHOSEN_PORTS = range(20_000, 32_000)  # Linux gives higher ones to connections, also while a daemon restarts
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UnavailableError(Exception):
    """Why there can be no cluster on this machine."""


def require() -> None:
    """That there can be a cluster here.

    Raises:
        UnavailableError: there cannot, and why.
    """
    _permitted()
    if missing := _missing():
        raise UnavailableError(f"not installed: {', '.join(missing)} (make test-slurm installs them)")


def install() -> None:
    """Installs what is missing.

    Raises:
        UnavailableError: it cannot be, or would be of no use, and why.
    """
    _permitted()
    if not (missing := _missing()):
        return
    if not shutil.which("apt-get"):
        raise UnavailableError(f"not installed: {', '.join(missing)}, and there is no apt-get")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:  # or the packages would start daemons of their own
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        said = _apt_get(missing)
    finally:
        if ours:
            policy.unlink()
    if missing := _missing():
        raise UnavailableError(f"apt-get could not install {', '.join(missing)}: {said[-500:]}")


def _permitted() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("a cluster of one's own needs root")
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode:
        raise UnavailableError("unshare --uts is not permitted here")


def _missing() -> list[str]:
    return [name for name in (*PACKAGES, *ACCOUNTING_PACKAGES) if not _installed(name)]


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f=${db:Status-Status}", package]
    with contextlib.suppress(OSError):
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"
    return False


def _apt_get(packages: list[str]) -> str:
    """What was said by the last command; lists are fetched only where those that are there do not do."""
    patience = [
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Acquire::http::Timeout=20",
        "-o",
        "Acquire::Retries=1",
    ]
    fetch = ["apt-get", "-q", "-y", *patience, "update"]
    install = ["apt-get", "-q", "-y", *patience, "install", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    said = ""
    for command in (install, fetch, install):
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=240, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{' '.join(command)} took longer than four minutes"
        said = done.stderr
        if command is install and done.returncode == 0:
            break
    return said


class Cluster:
    """A cluster that is up between `__enter__` and `__exit__`."""

    def __init__(self, accounting: bool = True) -> None:
        """Chooses a directory and ports."""
        self.accounting = accounting
        self.root = Path(tempfile.mkdtemp(prefix="o2o-slurm-", dir="/tmp"))  # short, for Unix sockets
        self.root.chmod(0o755)
        self.config = self.root / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.config)}
        self._ports = dict(zip(("ctld", "dbd", *NODES), _free_ports(2 + len(NODES)), strict=True))
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        """Starts everything, and waits until jobs can be submitted."""
        try:
            self._prepare()
            self._start_munge()
            if self.accounting:
                self._start_accounting()
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            self.wait("idle nodes", lambda: self.ask("sinfo", "-h", "-o", "%T").split() == ["idle"], 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends its jobs and daemons, and removes its directory."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.ask("scancel", "--user", "root", timeout=5)
        order = [f"slurmd-{node}" for node in NODES] + ["slurmctld", "slurmdbd", "mariadbd", "munged"]
        for name in order:
            self.stop(name, signal.SIGKILL if name == "slurmdbd" else signal.SIGTERM)
        for pid in self.job_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)

    def start_controller(self) -> None:
        """Starts slurmctld, which finds the jobs it knew again."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.config))
        self.wait("slurmctld", lambda: "UP" in self.ask("scontrol", "ping"), 30)

    def start_node(self, node: str) -> None:
        """Starts the slurmd of a node."""
        (self.root / f"spool-{node}").mkdir(exist_ok=True)
        self._start(f"slurmd-{node}", "slurmd", "-D", "-f", str(self.config), "-N", node)

    def process(self, name: str) -> int:
        """The process of a daemon."""
        return self._daemons[name].pid

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Ends a daemon."""
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(5)

    def ask(self, *command: str, timeout: float = 20) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def wait(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        """Waits until something is so.

        Raises:
            TimeoutError: it did not become so in time.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.SubprocessError):
                if ready():
                    return
            time.sleep(0.2)
        raise TimeoutError(f"{what}: not after {seconds:g} s\n{self.logs()}")

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-600:]}"
            for path in sorted(self.root.glob("*.log"))
        )

    def job_processes(self, job: str | None = None) -> list[int]:
        """The processes of the cluster's jobs, or of the job with this raw id (found by their environment)."""
        marks = {f"SLURM_CONF={self.config}".encode()}
        if job is not None:
            marks.add(f"SLURM_JOB_ID={job}".encode())
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                words = set(path.read_bytes().split(b"\0"))
                if marks <= words and any(word.startswith(b"SLURM_JOB_ID=") for word in words):
                    found.append(int(path.parent.name))
        return found

    def _prepare(self) -> None:
        self.config.write_text(self._configuration())
        gpus = [self.root / f"gpu{index}" for index in range(GPUS)]
        for path in gpus:
            path.touch()
        (self.root / "gres.conf").write_text(
            f"NodeName={','.join(GPU_NODES)} Name=gpu Type=fake File={self.root}/gpu[0-{GPUS - 1}]"
            " Flags=nvidia_gpu_env\n"
        )
        self.root.joinpath("slurmdbd.conf").write_text(self._accounting_configuration())
        self.root.joinpath("slurmdbd.conf").chmod(0o600)

    def _start_munge(self) -> None:
        (self.root / "munge").mkdir(mode=0o755)
        key = self.root / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        places = {
            "key-file": key,
            "socket": self.root / "munge.socket",
            "seed-file": self.root / "munge/seed",
        }
        places |= {"pid-file": self.root / "munge/pid", "log-file": self.root / "munge/log"}
        options = [f"--{name}={path}" for name, path in places.items()]
        self._start("munged", "munged", "--foreground", "--force", *options)
        self.wait("munged", lambda: bool(self.ask("munge", "-n", "-S", str(self.root / "munge.socket"))), 10)

    def _start_accounting(self) -> None:
        data, server = self.root / "mysql", self.root / "mysql.conf"
        (self.root / "mysql-temporary").mkdir()
        server.write_text(
            f"[mariadbd]\nuser=root\ndatadir={data}\nsocket={self.root}/mysql.socket\n"
            f"pid-file={self.root}/mysql.pid\ntmpdir={self.root}/mysql-temporary\n"
            "skip-networking\nskip-name-resolve\nskip-log-bin\ninnodb_buffer_pool_size=48M\n"
            "innodb_log_file_size=32M\ninnodb_lock_wait_timeout=900\ninnodb_flush_log_at_trx_commit=0\n"
        )
        login = ["--auth-root-authentication-method=socket", "--auth-root-socket-user=root"]
        subprocess.run(
            ["mariadb-install-db", f"--defaults-file={server}", "--user=root", "--skip-test-db", *login],
            env={"PATH": SEARCH_PATH},
            capture_output=True,
            check=True,
        )
        self._start("mariadbd", "mariadbd", f"--defaults-file={server}")
        self.wait("mariadbd", (self.root / "mysql.socket").is_socket, 30)
        self._start("slurmdbd", "slurmdbd", "-D")
        self.wait("slurmdbd", lambda: self.ask("sacctmgr", "-n", "list", "cluster") is not None, 30)
        for entry in (["cluster", "test"], ["account", "test"], ["user", "root", "account=test"]):
            self.ask("sacctmgr", "-i", "add", *entry)

    def _start(self, name: str, *command: str) -> None:
        words = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--uts",
            "sh",
            "-c",
            'hostname localhost && exec "$@"',
            "sh",
            *command,
        ]
        environment = {"PATH": SEARCH_PATH, "HOME": "/root", "SLURM_CONF": str(self.config)}
        environment["MYSQL_UNIX_PORT"] = f"{self.root}/mysql.socket"
        with (self.root / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                words, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _configuration(self) -> str:
        nodes = [
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={self._ports[node]} CPUs=8"
            f" RealMemory=32000{f' Gres=gpu:fake:{GPUS}' if node in GPU_NODES else ''}"
            for node in NODES
        ]
        storage = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            storage = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={self._ports['dbd']}\nAccountingStorageEnforce=associations,limits\n"
                f"AccountingStoragePass={self.root}/munge.socket"
            )
        common = "Nodes=ALL State=UP MaxTime=60 DefaultTime=5"
        return f"""ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={self._ports["ctld"]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.root}/munge.socket,cred_expire=5
StateSaveLocation={self.root}/state
SlurmdSpoolDir={self.root}/spool-%n
SlurmctldPidFile={self.root}/slurmctld.pid
SlurmdPidFile={self.root}/slurmd-%n.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=64
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2,bf_continue
PriorityType=priority/basic
ReturnToService=1
KillWait=30
SlurmdTimeout=180
MessageTimeout=10
TCPTimeout=2
CompleteWait=0
JobRequeue=1
MaxArraySize=101
FirstJobId={1000 + int(time.time()) % 50_000_000}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{storage}
{chr(10).join(nodes)}
PartitionName=main Default=YES {common} PriorityTier=5 PreemptMode=OFF
PartitionName=preemptible {common} PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent {common} PriorityTier=10 PreemptMode=OFF
"""

    def _accounting_configuration(self) -> str:
        return f"""AuthType=auth/munge
AuthInfo=socket={self.root}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self._ports["dbd"]}
CommunicationParameters=NoInAddrAny
SlurmUser=root
PidFile={self.root}/slurmdbd.pid
LogFile={self.root}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that clusters of processes that start at the same time do not look at either."""
    found: list[int] = []
    start = CHOSEN_PORTS.start + os.getpid() * 2 * count % len(CHOSEN_PORTS)
    for port in (*range(start, CHOSEN_PORTS.stop), *range(CHOSEN_PORTS.start, start)):
        with contextlib.suppress(OSError), socket.socket() as each:
            each.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise UnavailableError(f"fewer than {count} free ports")


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        yield
        signal.pause()


if __name__ == "__main__":
    if "--install" in sys.argv:
        try:
            install()
        except UnavailableError as error:
            print(f"no SLURM: {error}", flush=True)
            sys.exit(os.environ.get("O2O_REQUIRE_SLURM") == "1")
        sys.exit()
    require()
    with Cluster(accounting="--no-accounting" not in sys.argv) as cluster, _until_interrupted():
        print(f"export SLURM_CONF={cluster.config}", flush=True)
