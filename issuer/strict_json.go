package issuer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxJSONDepth is deeper than any metadata.
const maxJSONDepth = 16

var errNotObject = errors.New("it is not a JSON object with each member once")

// readJSONObject returns the members of a JSON object, byte for byte as they
// are named: encoding/json alone would take "Client_ID" for client_id and the
// last of two for the only one. Refused at any depth: a member that stands there
// twice. Members that are null are left out.
func readJSONObject(raw []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, errNotObject
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := eachMemberOnce(decoder, 0); err != nil {
		return nil, errNotObject
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotObject
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, errNotObject
	}
	for name, value := range members {
		if string(value) == "null" {
			delete(members, name)
		}
	}
	return members, nil
}

// eachMemberOnce reads one value.
func eachMemberOnce(decoder *json.Decoder, depth int) error {
	token, err := decoder.Token()
	open, nested := token.(json.Delim)
	switch {
	case err != nil:
		return err
	case !nested:
		return nil
	case depth == maxJSONDepth:
		return errors.New("too deep")
	}
	seen := make(map[string]bool)
	for decoder.More() {
		if open == '{' {
			name, err := decoder.Token()
			if err != nil {
				return err
			}
			if text := name.(string); seen[text] { // a decoder yields no other names
				return errors.New("a member stands there twice")
			} else {
				seen[text] = true
			}
		}
		if err := eachMemberOnce(decoder, depth+1); err != nil {
			return err
		}
	}
	_, err = decoder.Token() // the end of it
	return err
}
