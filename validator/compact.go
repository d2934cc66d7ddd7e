package validator

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"unicode/utf8"
)

// maxToken bounds an access token, in bytes.
const maxToken = 8 << 10

// tokenType is the `typ` of an access token. RFC 9068 section 2.1.
const tokenType = "at+jwt"

// compactToken is a token that passed the gate. Its signature is not verified.
type compactToken struct {
	kid       string
	signed    string // header and payload as they came: what the signature is over
	payload   []byte // decoded
	signature []byte // r and s, 32 bytes each
}

// errMalformed says for the log why a token did not pass the gate.
type errMalformed string

func (e errMalformed) Error() string { return "malformed token: " + string(e) }

// strictCompact is the gate before the signature is looked at. JWT libraries differ on
// re-encoded segments, on duplicate or case-variant members, on `crit`, on
// serialisations other than compact, and on the second half of an ECDSA
// signature; each difference is a second spelling of a revoked token or a
// claim that two readers see differently. So: three segments, each of which
// re-encodes to the same bytes; a header of exactly the members we issue; a
// signature of 64 bytes with the lower s.
//
// RFC 7515 section 3.1, RFC 8725 sections 3.1, 3.9 and 3.11.
func strictCompact(token string) (compactToken, error) {
	if len(token) > maxToken {
		return compactToken{}, errMalformed("longer than the bound")
	}
	header, rest, ok := strings.Cut(token, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(signature, ".") {
		return compactToken{}, errMalformed("not three segments")
	}
	if len(header) > 512 {
		return compactToken{}, errMalformed("header longer than the bound")
	}
	rawHeader, err := decodeSegment(header)
	if err != nil {
		return compactToken{}, err
	}
	t, err := readHeader(rawHeader)
	if err != nil {
		return compactToken{}, err
	}
	if t.signature, err = decodeSegment(signature); err != nil {
		return compactToken{}, err
	}
	if err := checkSignatureForm(t.signature); err != nil {
		return compactToken{}, err
	}
	if t.payload, err = decodeSegment(payload); err != nil {
		return compactToken{}, err
	}
	t.signed = token[:len(header)+1+len(payload)]
	return t, nil
}

// segmentEncoding refuses padding, foreign alphabets and unused low bits.
var segmentEncoding = base64.RawURLEncoding.Strict()

func decodeSegment(segment string) ([]byte, error) {
	// The decoder skips CR and LF wherever they stand.
	if strings.ContainsAny(segment, "\r\n") {
		return nil, errMalformed("line break in a segment")
	}
	raw, err := segmentEncoding.DecodeString(segment)
	if err != nil {
		return nil, errMalformed("segment is not base64url")
	}
	return raw, nil
}

func readHeader(raw []byte) (compactToken, error) {
	members, err := readObject(raw)
	if err != nil {
		return compactToken{}, err
	}
	if len(members) != 3 {
		return compactToken{}, errMalformed("header has other members than alg, kid and typ")
	}
	alg, err1 := stringMember(members, "alg")
	kid, err2 := stringMember(members, "kid")
	typ, err3 := stringMember(members, "typ")
	if err := errors.Join(err1, err2, err3); err != nil {
		return compactToken{}, err
	}
	switch {
	case alg != "ES256":
		return compactToken{}, errMalformed("alg is not ES256")
	case typ != tokenType:
		return compactToken{}, errMalformed("typ is not " + tokenType)
	}
	return compactToken{kid: kid}, nil
}

// halfOrder is half the order of P-256. Of the two signatures (r, s) and
// (r, n-s), both of which verify, only the one with the lower s is ours.
var halfOrder, _ = new(big.Int).SetString("7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8", 16)

var halfOrderBytes = halfOrder.FillBytes(make([]byte, 32))

func checkSignatureForm(signature []byte) error {
	if len(signature) != 64 {
		return errMalformed("signature is not 64 bytes")
	}
	if bytes.Compare(signature[32:], halfOrderBytes) > 0 {
		return errMalformed("signature has the higher s")
	}
	return nil
}

// readObject reads one JSON object. It refuses what readers disagree on:
// duplicate members, members that differ in case only, bytes after the object,
// invalid UTF-8.
func readObject(raw []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, errMalformed("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errMalformed("not a JSON object")
	}
	members := make(map[string]json.RawMessage, 12)
	folded := make(map[string]struct{}, 12)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, errMalformed("not JSON")
		}
		name := key.(string) // a decoder inside an object yields string keys
		if _, dup := folded[strings.ToLower(name)]; dup {
			return nil, errMalformed("duplicate member")
		}
		folded[strings.ToLower(name)] = struct{}{}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errMalformed("not JSON")
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errMalformed("not JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errMalformed("bytes after the object")
	}
	return members, nil
}

// stringMember returns a member that must be a JSON string and not empty.
func stringMember(members map[string]json.RawMessage, name string) (string, error) {
	raw, ok := members[name]
	if !ok {
		return "", errMalformed(name + " is missing")
	}
	if raw[0] != '"' {
		return "", errMalformed(name + " is not a string")
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || s == "" {
		return "", errMalformed(name + " is not a string")
	}
	return s, nil
}

// timeMember returns a member that must be a JSON integer: seconds since 1970,
// after 0 and before the year 36812.
func timeMember(members map[string]json.RawMessage, name string) (seconds int64, err error) {
	raw, ok := members[name]
	if !ok {
		return 0, errMalformed(name + " is missing")
	}
	if len(raw) > 12 {
		return 0, errMalformed(name + " is out of bounds")
	}
	for _, c := range raw {
		if c < '0' || c > '9' {
			return 0, errMalformed(name + " is not an integer")
		}
		seconds = seconds*10 + int64(c-'0')
	}
	if seconds <= 0 {
		return 0, errMalformed(fmt.Sprintf("%s is %d", name, seconds))
	}
	return seconds, nil
}
