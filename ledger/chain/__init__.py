"""The chain: reading and writing the registry over plain JSON-RPC, and the local development chain.

    rpc.py           JSON-RPC over HTTP
    abi.py           values to call data and back;  contract.py  the compiled contract
    view.py          the registry at one block;  registry.py  reading it;  history.py  logs.py  its events
    transactions.py  build, sign, send, look up;  reverts.py  refusals in words;  account.py  the key that signs
    finality.py      when a block counts;  identity.py  is this still the same chain
    local.py         the chain kept in a folder;  node.py  its process;  dump.py  its saved state;  doctor.py

`rpc`, `abi`, `contract`, `view`, `registry`, `history`, `logs`, `finality` and `identity` need the standard library only, for `verify` uses them.
"""
