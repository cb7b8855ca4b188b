"""Which member runs which task: a pure function of what the members say of themselves.

Rules, in order of precedence:

1. Each task has exactly one owner; a claim from an older generation than another member's is void (KIP-792).
2. Cooperation: a task that moves is withheld until its owner has let go of it (KIP-429), so that no task ever has
   two owners. The owner sees it missing from its assignment, closes it and joins again; then it is handed out.
3. High availability: a task with stores only moves to where they are nearly complete; until then it stays, and a
   warm-up gets ready at its new place (KIP-441).
4. Balance: of each subtopology no member has more than one task more than another, and so it is over all tasks;
   both for each unit of capacity.
5. Least movement: within balance a task stays where it is; a free one goes where its stores are furthest.
6. Standbys: copies of stores, never beside the task itself, spread over hosts and racks (KIP-708).
7. Who is leaving gets nothing, and keeps only what nobody else is ready for.

The modules, from first to last step: `group` (what is said and decided), `stores` (how far they are), `balance` (where
tasks belong; `flow` solves it), `handover` (how they get there), `standbys` (copies), `decision` (all together).
"""

from streamlib.engine.assignment.decision import assign
from streamlib.engine.assignment.group import Decision, Member, Policy, Share, valid_claims

__all__ = ["Decision", "Member", "Policy", "Share", "assign", "valid_claims"]
