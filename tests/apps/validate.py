"""Prints, for each line "NAME<tab>DOCUMENT" of standard input, the name and how many errors the schema
in the file named by the first argument finds in the JSON document."""

import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1]) as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for line in sys.stdin:
    name, _, document = line.partition("\t")
    errors = [error.json_path + ": " + error.message[:200] for error in validator.iter_errors(json.loads(document))]
    print(json.dumps([name, errors]))
