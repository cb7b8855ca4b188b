#!/usr/bin/env bash
# Dead letters from the failure to the replay. It needs a broker ('streamlib broker start') that has not seen it before.
set -euo pipefail
cd "$(dirname "$0")/.."
data=examples/data/dead_letter_replay

streamlib broker topic invoices rates invoices-in-euros invoices-failed invoices-to-mend invoices-hopeless --partitions 2
streamlib produce rates --json --value json < $data/rates.jsonl
streamlib run examples/dead_letter_replay.py --log-level warning &
trap 'kill $(jobs -p); wait' EXIT

# Two of the six invoices pass. The others are put aside, and hold nobody up.
streamlib produce invoices --json --recent --value json < $data/invoices.jsonl
streamlib consume invoices-in-euros --from-beginning --max 2
streamlib consume invoices-failed --from-beginning --max 4 > /dev/null

# What went wrong? One currency has no rate, and somebody writes amounts as text.
streamlib dlq list invoices-failed
streamlib dlq show invoices-failed --exception NoRate
streamlib dlq show invoices-failed --exception ValidationError

# The rate can be had. Then the records are fine as they are, and go back to where they came from.
echo 'CHF:{"euros": 1.05}' | streamlib produce rates --separator : --value json
streamlib dlq replay invoices-failed --exception NoRate --dry-run
streamlib dlq replay invoices-failed --exception NoRate --yes
streamlib consume invoices-in-euros --from-beginning --max 3

# The others have to be mended. They go to the job that does it, and it writes them to where they came from.
streamlib run examples/dead_letter_replay.py:mend --application-id invoices-mend --log-level warning &
streamlib dlq replay invoices-failed --exception ValidationError --to invoices-to-mend --yes
streamlib consume invoices-in-euros --from-beginning --max 5

# Nothing is left to replay, and a second replay does nothing. One of them is for a person to look at.
streamlib dlq replay invoices-failed --yes
streamlib consume invoices-hopeless --from-beginning --max 1 > /dev/null
streamlib dlq show invoices-hopeless
