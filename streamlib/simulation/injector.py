"""Makes the faults of a scenario happen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    Killed,
    KilledAtRequest,
    LeadersMoved,
    MarkersSlow,
    ProducersFenced,
    RebalanceStorm,
    RequestFault,
    RequestJudge,
    Stopped,
    TimedFault,
    TransactionsExpired,
)
from streamlib.simulation.hosts import Host
from streamlib.simulation.loop import Process
from streamlib.simulation.network import Network, Verdict


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
            case ProducersFenced():
                self._cluster.transactions.fence_all(f"{self._group_id}-{self._hosts[fault.host].disk.identity}-")
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
                self._kill(host, fault.down_ms)
                host.disk.lose()
            case DiskTailLost():
                self._kill(host, fault.down_ms)
                host.disk.lose_tail(fault.writes)
            case ClockJumped():
                host.clock.skew_ms += fault.by_ms

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
