"""Staged units: the tokenized rows of one work unit each, on disk, written once and read when shards are written.

A unit with key KEY (a sha256 of its source bytes and its recipe) consists of up to four Arrow IPC files in one
directory:

- `unit-KEY.arrow`: the rows, uncompressed, so that any of them can be read by its byte offset. Columns:
  `sftkit_row_number` (int64, the row's number within its source, from 1), one list<int32> column for each token column
  or `sftkit_text` (large_string, the text column), and `sftkit_extras` (large_string, the retained columns as a JSON
  object). No column has a name that the data chooses. Missing when no row passed.
- `unit-KEY.bad.account.arrow`: the quarantined rows, zstd-compressed. Missing when there are none.
- `unit-KEY.dropped.account.arrow`: the dropped rows, likewise.
- `unit-KEY.account.arrow`: the unit record: row counts, and size and sha256 of the other files. It is written last,
  so a unit exists only once it is complete.

`template-date-TOKENIZER` holds the day that the chat template of a tokenizer is given, if it asks for the date.
"""
