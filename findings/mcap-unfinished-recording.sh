#!/bin/bash
# An MCAP recording whose recorder was killed, in mcap 1.6.0 for Python and rosbags 0.11.9.
#
# One would guess: chunks with checksums and a magic at both ends are there so that a recording without its end is read up to its last whole chunk, by
# the format's own reader first of all. It is not: make_reader looks for the end and raises RecordLengthLimitExceeded, NonSeekingReader sorts all
# messages before it gives the first one and raises EndOfFile, rosbags raises ReaderError: 0 messages each. 19 of 20 are there: StreamReader gives
# the records one by one until the file ends. A recorder should write short files, and a file that was cut must be rewritten before others open it.
#
# Needs python3 with venv and PyPI; works in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mcap==1.6.0 rosbags==0.11.9
cat >"$work/try.py" <<'END'
import pathlib
import sys

from mcap.reader import NonSeekingReader, make_reader
from mcap.records import Chunk, Message
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import Writer
from rosbags.rosbag2 import Reader as RosbagsReader

path = pathlib.Path(sys.argv[1])
with path.open("wb") as file:
    writer = Writer(file, chunk_size=100)
    writer.start(profile="ros2", library="")
    schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data\n")
    channel = writer.register_channel("/talk", "cdr", schema)
    for number in range(20):
        writer.add_message(channel, number * 10**9, b"\0\1\0\0\2\0\0\0a\0", number * 10**9)
    # killed here: no finish()


def count(name, messages):
    found = 0
    try:
        for _ in messages():
            found += 1
    except Exception as error:
        print(f"{name}: {found} messages, then {type(error).__name__}")
        return found, True
    print(f"{name}: {found} messages")
    return found, False


def by_hand():
    with path.open("rb") as file:
        reader = StreamReader(file, skip_magic=False, emit_chunks=True)
        try:
            for record in reader.records:
                if isinstance(record, Chunk):
                    yield from (one for one in breakup_chunk(record) if isinstance(one, Message))
        except Exception as error:
            print(f"  (the stream ends with {type(error).__name__})")


def rosbags():
    with RosbagsReader(path) as reader:
        yield from reader.messages()


seeking = count("mcap make_reader", lambda: make_reader(path.open("rb")).iter_messages())
streaming = count("mcap NonSeekingReader", lambda: NonSeekingReader(path.open("rb")).iter_messages())
bag = count("rosbags", rosbags)
there = count("mcap StreamReader, record by record", by_hand)
expected = seeking == streaming == bag == (0, True) and there[0] == 19
print("as described" if expected else "CHANGED")
sys.exit(not expected)
END
"$work/venv/bin/python" "$work/try.py" "$work/cut.mcap"
