// Parses and binds queries. Argument: the node_modules that have the language service. Standard input:
// {tables, queries}, with "(column: type, …)" for each table. Standard output: the diagnostics of each query.
"use strict";

const service = `${process.argv[2]}/@kusto/language-service-next`;
require(`${service}/bridge.min.js`);
require(`${service}/Kusto.Language.Bridge.min.js`);
const { GlobalState, KustoCode, Symbols } = Kusto.Language;

const { tables, queries } = JSON.parse(require("fs").readFileSync(0, "utf8"));
// The service is C#, whose constructors have numbers here: TableSymbol(name, schema, description) and
// DatabaseSymbol(name, members, isOpen).
const symbols = Object.entries(tables).map(([name, columns]) => new Symbols.TableSymbol.$ctor7(name, columns, null));
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.$ctor1("logs", symbols, false));

const diagnosticsOf = (query) => Bridge.toArray(KustoCode.ParseAndAnalyze(query, globals).GetDiagnostics());
const said = queries.map((query) => diagnosticsOf(query).map(({ Start, Message }) => [Start, Message]));
process.stdout.write(JSON.stringify(said));
