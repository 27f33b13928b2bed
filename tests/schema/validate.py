"""Validates documents against a JSON Schema, with the library of its reference implementation's users.

    validate.py SCHEMA < DOCUMENTS

Reads a line for each document, prints a line for each: `fits`, or where and why it does not.
"""
import json
import sys

import jsonschema

schema = json.load(open(sys.argv[1], encoding="utf-8"))
validator_of = jsonschema.validators.validator_for(schema)
validator_of.check_schema(schema)
validator = validator_of(schema)
for line in sys.stdin:
    problem = next(iter(validator.iter_errors(json.loads(line))), None)
    print("fits" if problem is None else f"{problem.json_path}: {problem.message}".replace("\n", " "))
