package validator

import (
	"bytes"
	"encoding/json"
	"iter"
	"unicode/utf8"
)

// maxNesting bounds how deep a message may be nested. Parsers give up at 200
// (pydantic), 1000 (Python, the Go MCP SDK) or never; nobody nests so deep.
const maxNesting = 128

// document is JSON as it came, to be read without losing where things stand.
// It is well-formed, so that walking it cannot fail.
type document []byte

// span is the place of a value in a document, or of a member's name.
type span struct{ from, to int }

// errNotJSON says why bytes are no document.
type errNotJSON string

func (e errNotJSON) Error() string { return "not plain JSON: " + string(e) }

// parseDocument checks that all readers of JSON see the same in data: RFC 8259
// to the letter, UTF-8 without a byte order mark, one value and nothing after
// it, no deeper than maxNesting. Members that stand there twice, and what names
// look alike, are the caller's affair.
func parseDocument(data []byte) (document, span, error) {
	if !utf8.Valid(data) {
		return nil, span{}, errNotJSON("not UTF-8")
	}
	if nesting(data) > maxNesting {
		return nil, span{}, errNotJSON("nested too deep")
	}
	if !json.Valid(data) {
		return nil, span{}, errNotJSON("malformed")
	}
	d := document(data)
	from := d.space(0)
	return d, span{from, d.end(from)}, nil
}

// nesting returns how deep the brackets of data go.
func nesting(data []byte) int {
	depth, deepest := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = stringEnd(data, i) - 1
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return deepest
}

// stringEnd returns the place after the string that begins at from.
func stringEnd(data []byte, from int) int {
	quote := from
	for i := from + 1; i < len(data); {
		if quote < i {
			next := bytes.IndexByte(data[i:], '"')
			if next < 0 {
				break
			}
			quote = i + next
		}
		escape := bytes.IndexByte(data[i:quote], '\\')
		if escape < 0 {
			return quote + 1
		}
		i += escape + 2
	}
	return len(data)
}

// space returns the place of the first byte from i on that is no white space.
func (d document) space(i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\t' || d[i] == '\n' || d[i] == '\r') {
		i++
	}
	return i
}

// end returns the place after the value that begins at from.
func (d document) end(from int) int {
	depth := 0
	for i := from; i < len(d); {
		switch d[i] {
		case '"':
			i = stringEnd(d, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\n', '\r':
			i++
			continue
		default: // a number or a literal
			for i++; i < len(d) && !isDelimiter(d[i]); i++ {
			}
		}
		if depth == 0 {
			return i
		}
	}
	return len(d)
}

func isDelimiter(c byte) bool {
	switch c {
	case ',', ':', '}', ']', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

// is reports whether the value begins with c, which tells its kind: { [ " or
// another.
func (d document) is(v span, c byte) bool { return d[v.from] == c }

// members yields name and value of each member of an object, in order.
func (d document) members(object span) iter.Seq2[span, span] {
	return func(yield func(name, value span) bool) {
		for i := d.space(object.from + 1); d[i] != '}'; {
			name := span{i, stringEnd(d, i)}
			colon := d.space(name.to)
			from := d.space(colon + 1)
			value := span{from, d.end(from)}
			if !yield(name, value) {
				return
			}
			if i = d.space(value.to); d[i] == ',' {
				i = d.space(i + 1)
			}
		}
	}
}

// elements yields each element of an array, in order.
func (d document) elements(array span) iter.Seq[span] {
	return func(yield func(span) bool) {
		for i := d.space(array.from + 1); d[i] != ']'; {
			value := span{i, d.end(i)}
			if !yield(value) {
				return
			}
			if i = d.space(value.to); d[i] == ',' {
				i = d.space(i + 1)
			}
		}
	}
}

// text returns the string that stands at v. Escapes that are no character (half
// of a surrogate pair) become U+FFFD, which is not ASCII: see isPlainText.
func (d document) text(v span) (string, bool) {
	if !d.is(v, '"') {
		return "", false
	}
	var s string
	if err := json.Unmarshal(d[v.from:v.to], &s); err != nil {
		return "", false
	}
	return s, true
}

// isPlainText reports whether s is one or more visible ASCII characters: what
// readers cannot normalise, fold, cut off or trim into something else.
func isPlainText(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}
