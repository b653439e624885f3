"""The demonstration: the whole story in one run, told with the commands an operator uses.

It stands beside ledger/cli at the top: it runs command lines, and plays the part of province, city, intruder and auditor
around them. Nothing of the ledger imports it.
"""
