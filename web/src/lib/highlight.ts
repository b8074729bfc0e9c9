// A light syntax colouring: comments, strings, numbers, keywords and calls, for families of languages
// that look alike. It yields pieces of the text, never markup, and does not understand any grammar.

export type PieceKind = "plain" | "comment" | "string" | "number" | "keyword" | "call";

export interface Piece {
  readonly kind: PieceKind;
  readonly text: string;
}

interface Family {
  readonly comment: string;
  readonly string: string;
  readonly keywords: ReadonlySet<string>;
  readonly ignoreCase?: boolean;
}

const QUOTED = String.raw`"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?`;
const words = (list: string): ReadonlySet<string> => new Set(list.split(" "));

const CURLY: Family = {
  comment: String.raw`\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`,
  string: QUOTED + "|`(?:\\\\[\\s\\S]|[^`\\\\])*`?",
  keywords: words(
    "abstract as async auto await bool boolean break byte case catch char class const constexpr " +
      "continue default defer delete do double else enum export extends extern false final finally " +
      "float fn for from func function go goto if impl implements import in include instanceof int " +
      "interface let long loop match mod module mut namespace new nil null nullptr number of " +
      "operator override package private protected pub public readonly return self short signed " +
      "sizeof static string struct super switch template this throw throws trait true try type " +
      "typedef typename typeof undefined union unsafe unsigned use using var virtual void volatile " +
      "where while with yield define ifdef ifndef endif pragma",
  ),
};

const PYTHON: Family = {
  comment: String.raw`#[^\n]*`,
  string: String.raw`"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|${QUOTED}`,
  keywords: words(
    "and as assert async await break case class continue def del elif else except False finally for " +
      "from global if import in is lambda match None nonlocal not or pass raise return self True " +
      "try while with yield",
  ),
};

const SHELL: Family = {
  comment: String.raw`(?<=^|\s)#[^\n]*`,
  string: QUOTED,
  keywords: words(
    "if then else elif fi for while until do done case esac in function return export local set " +
      "source echo cd sudo true false null yes no on off",
  ),
};

const SQL: Family = {
  comment: String.raw`--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)`,
  string: QUOTED,
  ignoreCase: true,
  keywords: words(
    "select from where and or not null is in as on join left right inner outer full cross group by " +
      "order having limit offset insert into values update set delete create table index view drop " +
      "alter add primary key foreign references unique default case when then else end distinct " +
      "union all exists between like asc desc with returning begin commit rollback",
  ),
};

const FAMILIES: Readonly<Record<string, Family>> = Object.fromEntries([
  ..."c cc cpp c++ h hpp cs csharp java js javascript jsx ts typescript tsx go rust rs swift kotlin kt scala php css scss json jsonc dart proto"
    .split(" ")
    .map((name) => [name, CURLY] as const),
  ...["py", "python", "python3"].map((name) => [name, PYTHON] as const),
  ..."sh bash shell zsh console yaml yml toml ini dockerfile makefile make ruby rb r perl"
    .split(" ")
    .map((name) => [name, SHELL] as const),
  ...["sql", "sqlite", "postgresql", "mysql"].map((name) => [name, SQL] as const),
]);

const MAX_CHARACTERS = 20_000;
const patterns = new Map<Family, RegExp>();

/** The code cut into coloured pieces; their texts joined are the code. */
export function highlight(code: string, language: string): Piece[] {
  const family = FAMILIES[language.toLowerCase()];
  if (family === undefined || code.length > MAX_CHARACTERS) return [{ kind: "plain", text: code }];
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of code.matchAll(patternOf(family))) {
    const kind = kindOf(match, family);
    if (kind === "plain") continue;
    if (match.index > end) pieces.push({ kind: "plain", text: code.slice(end, match.index) });
    pieces.push({ kind, text: match[0] });
    end = match.index + match[0].length;
  }
  if (end < code.length) pieces.push({ kind: "plain", text: code.slice(end) });
  return pieces;
}

function patternOf(family: Family): RegExp {
  let pattern = patterns.get(family);
  if (pattern === undefined) {
    pattern = new RegExp(
      `(?<comment>${family.comment})|(?<string>${family.string})` +
        String.raw`|(?<number>\b\d[\w.]*)|(?<call>[A-Za-z_]\w*(?=\())|(?<word>[A-Za-z_]\w*)`,
      "g",
    );
    patterns.set(family, pattern);
  }
  return pattern;
}

function kindOf(match: RegExpExecArray, family: Family): PieceKind {
  const groups = match.groups ?? {};
  if (groups["comment"] !== undefined) return "comment";
  if (groups["string"] !== undefined) return "string";
  if (groups["number"] !== undefined) return "number";
  const word = match[0];
  if (family.keywords.has(family.ignoreCase === true ? word.toLowerCase() : word)) return "keyword";
  return groups["call"] === undefined ? "plain" : "call";
}
