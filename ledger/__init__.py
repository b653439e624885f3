"""duizhang (对账): proves that what the province sent is what the city holds.

The path of one row, from a table to an auditor, and the modules it passes (the README has the same map; a test keeps both true):

    source/table.py  source/files.py    a row is read: one consistent, read-only read, as columns of text
    kernel/entries.py                      normal form, canonical bytes, keyed commitment: 64 bytes (record.py is the reference), in one
                                           compiled pass where that can be (kernel/onepass.py, native/rows.c)
    batch/build.py    kernel/sorting.py    entries sorted, one per key; the RFC 9162 root (merkle.py); batch/engine.py: here or on a cluster
    store/archive.py  store/entryfile.py   canonical bytes encrypted, entries immutable, both written before anything is claimed
    delivery/send.py  sealing.py           the batch gets its descriptor (descriptor.py) and becomes the intent of a claim
    anchor/claims.py  anchor/outbox.py     signed, stored, sent, looked up, final, dumped, confirmed by reading the contract
    chain/registry.py                      one consistent reading of the registry: who claimed what, in which order
    batch/stream.py   batch/history.py     batches arranged into streams, and the fold: what is live
    reconcile/compare.py                   live rows against the fold: findings, counts that balance, a verdict
    prove.py  proof.py  verify.py          one record opened, with its path; checked with a trust file and the chain alone

Imports point down only:

    cli  ->  nightly demo  ->  delivery sealing prove verify fsck setup  ->  reconcile  ->  batch  ->  anchor  ->  workspace config
    ->  spark  ->  chain | store | source  ->  kernel sketch  ->  proof record keys merkle descriptor catalog pattern jcs  ->  native  ->  errors
    (all of them are LAYERS in the test of the structure)
"""
