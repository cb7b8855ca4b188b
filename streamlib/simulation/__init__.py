"""Real workers against a model of Kafka, in virtual time, with faults: nothing lost, nothing twice, from a seed.

    python -m streamlib.simulation --seeds 1000

What runs is the production code of a worker from `runtime/` down to `kafka/`: tasks, transactions, membership,
producers with their retries. What is modelled is what lies beyond: the network, the brokers, the disk, the clock.

    cluster/        the model of Kafka                  workloads/      topologies whose outputs betray every mistake
    loop.py         virtual time; processes that die    scenario.py     what a seed stands for
    network.py      connections that break              simulation.py   a run: safety, liveness, verdict
    disk.py         disks that survive, or do not       observer.py     what is watched from outside
    faults.py       what can go wrong; injector.py makes it happen
"""
