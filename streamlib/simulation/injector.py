"""Makes the faults of a scenario happen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamlib.simulation.disk import Disk
from streamlib.simulation.faults import (
    BrokerDown,
    BrokerSlow,
    ClockJumped,
    Compacted,
    CoordinatorsMoved,
    CutOff,
    DiskLost,
    DiskTailLost,
    Fault,
    Frozen,
    FrozenAtRequest,
    Joined,
    Killed,
    KilledAtRequest,
    LeadersMoved,
    Left,
    MarkersSlow,
    ProducersFenced,
    RebalanceStorm,
    Replaced,
    RequestFault,
    RequestJudge,
    Restarted,
    Stopped,
    TimedFault,
    TransactionsExpired,
)
from streamlib.simulation.hosts import Host
from streamlib.simulation.loop import Process
from streamlib.simulation.network import Network, Verdict

REPLACED_WITHIN_MS = 20_000.0
"""A rolling replacement goes on after this long, whether or not the last one runs again."""
LOOK_MS = 250.0


class Injector:
    """Everything that goes wrong in a run, until `end`."""

    def __init__(self, faults: Iterable[Fault], network: Network, hosts: Mapping[str, Host], group_id: str) -> None:
        faults = list(faults)
        self._network = network
        self._cluster = network.cluster
        self._hosts = hosts
        self._group_id = group_id
        self._judge = RequestJudge(faults)
        self._over = False
        network.judge = self
        for fault in faults:
            if not isinstance(fault, RequestFault):
                network.later(fault.at_ms, lambda fault=fault: self._happens(fault))  # type: ignore[misc]

    def verdict(self, host: str, api: str) -> Verdict:
        """See `streamlib.simulation.network.Judge`."""
        return self._judge.verdict(host, api)

    def strike(self, process: Process) -> None:
        """See `streamlib.simulation.network.Judge`."""
        host = self._hosts[process.name]
        if not process.alive or process is not host.process:
            return
        match self._judge.strike(process.name):
            case KilledAtRequest(down_ms=down_ms):
                self._kill(host, down_ms)
            case FrozenAtRequest(for_ms=for_ms):
                self._freeze(host, for_ms)
            case None:
                pass

    def end(self) -> None:
        """Nothing goes wrong from now on: what is broken is mended, who is down comes back."""
        self._over = True
        self._judge.end()
        for broker in range(self._cluster.brokers.count):
            self._cluster.start_broker(broker)
            self._network.slow_down(broker, 0)
        self._network.heal_all()
        self._network.markers_as_usual()
        for host in self._hosts.values():
            host.thaw()
            host.start()

    def _happens(self, fault: TimedFault) -> None:
        if self._over:
            return
        self._network.trace.note(f"*** {fault}")
        match fault:
            case Killed() | Stopped() | Frozen() | CutOff() | DiskLost() | DiskTailLost() | ClockJumped():
                self._to_host(fault, self._hosts[fault.host])
            case Joined() | Left() | Restarted():
                self._move(fault, self._hosts[fault.host])
            case Replaced():
                self._replace(fault, list(self._hosts.values()))
            case ProducersFenced():
                self._cluster.transactions.fence_all(f"{self._group_id}-{self._hosts[fault.host].identity}-")
            case BrokerDown() | BrokerSlow() | LeadersMoved() | CoordinatorsMoved() | MarkersSlow() | Compacted():
                self._to_brokers(fault)
            case TransactionsExpired():
                self._cluster.transactions.expire_all()
            case RebalanceStorm():
                for turn in range(fault.times):
                    self._network.later(turn * fault.every_ms, lambda: self._cluster.groups.storm(self._group_id))

    def _to_host(
        self,
        fault: Killed | Stopped | Frozen | CutOff | DiskLost | DiskTailLost | ClockJumped,
        host: Host,
    ) -> None:
        match fault:
            case Killed():
                self._kill(host, fault.down_ms)
            case Stopped():
                host.stop()
            case Frozen():
                self._freeze(host, fault.for_ms)
            case CutOff():
                self._network.cut(host.name)
                self._network.later(fault.for_ms, lambda: self._network.heal(host.name))
            case DiskLost():
                self._kill_all_on(host.disk, fault.down_ms)
                host.disk.lose()
            case DiskTailLost():
                self._kill_all_on(host.disk, fault.down_ms)
                host.disk.lose_tail(fault.writes)
            case ClockJumped():
                host.clock.skew_ms += fault.by_ms

    def _move(self, fault: Joined | Left | Restarted, host: Host) -> None:
        match fault:
            case Joined():
                host.wanted = True
                host.start()
            case Left(back_after_ms=None):
                host.wanted = not any(other.wanted for other in self._hosts.values() if other is not host)
                host.stop(leave=True)
            case Left(back_after_ms=float() as away_ms):
                host.stop(leave=True, again_ms=away_ms)
            case Restarted():
                host.stop(leave=False)

    def _replace(self, fault: Replaced, hosts: list[Host]) -> None:
        """Stop the first of these, and go on with the others when it runs again."""
        hosts = [host for host in hosts if host.wanted]
        if self._over or not hosts:
            return
        host, before = hosts[0], hosts[0].process
        host.stop(leave=fault.leave, fresh=fault.fresh and len(self._hosts_on(host.disk)) == 1)
        until_ms = self._network.timers.now_ms() + REPLACED_WITHIN_MS

        def look() -> None:
            back = host.worker is not None and host.process is not before and host.worker.running
            if back or self._network.timers.now_ms() > until_ms:
                self._network.later(fault.pause_ms, lambda: self._replace(fault, hosts[1:]))
            elif not self._over:
                self._network.later(LOOK_MS, look)

        look()

    def _hosts_on(self, disk: Disk) -> list[Host]:
        return [host for host in self._hosts.values() if host.disk is disk]

    def _kill_all_on(self, disk: Disk, down_ms: float) -> None:
        for host in self._hosts_on(disk):
            self._kill(host, down_ms)

    def _to_brokers(
        self, fault: BrokerDown | BrokerSlow | LeadersMoved | CoordinatorsMoved | MarkersSlow | Compacted
    ) -> None:
        cluster, network = self._cluster, self._network
        match fault:
            case BrokerDown():
                if len(cluster.brokers.up) > 1:
                    cluster.stop_broker(fault.broker)
                    network.break_all(fault.broker)
                    network.later(fault.for_ms, lambda: cluster.start_broker(fault.broker))
            case BrokerSlow():
                network.slow_down(fault.broker, fault.by_ms)
                network.later(fault.for_ms, lambda: network.slow_down(fault.broker, 0))
            case LeadersMoved():
                cluster.move_leaders(fault.by)
            case CoordinatorsMoved():
                cluster.move_coordinators(fault.by, fault.loading_ms)
            case MarkersSlow():
                network.timers.slow_ms = fault.by_ms
                network.later(fault.for_ms, network.markers_as_usual)
            case Compacted():
                cluster.compact()

    def _freeze(self, host: Host, for_ms: float) -> None:
        host.freeze()
        self._network.later(for_ms, host.thaw)

    def _kill(self, host: Host, down_ms: float) -> None:
        host.kill()
        host.start_later(down_ms)
