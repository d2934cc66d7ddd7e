package admin

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"unicode/utf8"
)

// isText reports whether a row can hold the text. For another one Postgres fails
// the whole statement, in words that are not for whoever asked.
func isText(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// check refuses what no row can hold, before any of it is asked for.
func (q *question) check() error {
	if !isText(q.name) {
		return missing("nothing is called %q: names are UTF-8 without NUL", q.name)
	}
	if err := checkQuery(q.query); err != nil {
		return err
	}
	if !utf8.Valid(q.body) {
		return invalid("the body is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(q.body))
	for {
		token, err := decoder.Token()
		if err != nil { // the end, or no JSON, which is told of later
			return nil
		}
		if text, ok := token.(string); ok && !isText(text) {
			return invalid("the body holds %q: texts are without NUL", text)
		}
	}
}

func checkQuery(query url.Values) error {
	for name, values := range query {
		for _, value := range values {
			if !isText(value) {
				return invalid("the parameter %q is %q: texts are UTF-8 without NUL", name, value)
			}
		}
	}
	return nil
}
