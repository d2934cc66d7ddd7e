package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UserClaims are what is kept of users besides who they are: roles, groups,
// organisation. Each claim has its values, in the order in which they came; one
// that is no list has one. Once made, they are not changed.
type UserClaims map[string][]string

// ReadUserClaims reads claims as they are kept: a JSON object of texts, numbers,
// booleans and lists of texts. Numbers and booleans become texts, as JSON writes
// them. What is none of these is left out: nobody can require it.
func ReadUserClaims(object []byte) (UserClaims, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, fmt.Errorf("claims of a user: %w", err)
	}
	if len(members) == 0 {
		return nil, nil
	}
	claims := make(UserClaims, len(members))
	for name, raw := range members {
		var one string
		var several []string
		switch {
		case string(raw) == "null":
		case json.Unmarshal(raw, &one) == nil:
			claims[name] = []string{one}
		case json.Unmarshal(raw, &several) == nil:
			claims[name] = several
		case raw[0] != '{' && raw[0] != '[':
			claims[name] = []string{string(raw)}
		}
	}
	return claims, nil
}

// Bytes is about what the claims take in memory.
func (c UserClaims) Bytes() int {
	n := 0
	for name, values := range c {
		n += 64 + len(name)
		for _, value := range values {
			n += 16 + len(value)
		}
	}
	return n
}

// UserRequirement is what a rule asks of the user: that a claim has one of the
// values, or holds one of them in its list.
type UserRequirement struct {
	Claim  string   `json:"claim"`
	Values []string `json:"values"`
}

// ParseUserRequirement reads claim=value or claim=value,value. No scope is spelled
// like that: see NewCatalog.
func ParseUserRequirement(text string) (UserRequirement, error) {
	claim, values, found := strings.Cut(text, "=")
	if !found {
		return UserRequirement{}, fmt.Errorf("%q is no requirement on the user; write CLAIM=VALUE", text)
	}
	r := UserRequirement{claim, strings.Split(values, ",")}
	return r, r.Check()
}

// IsUserRequirement reports whether the text is meant as one, and not as a scope.
func IsUserRequirement(text string) bool { return strings.Contains(text, "=") }

// Check refuses what could be read in two ways, or not at all.
func (r UserRequirement) Check() error {
	odd := func(text string) bool {
		return text == "" || strings.ContainsAny(text, ",= \"\\") || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f })
	}
	switch {
	case odd(r.Claim):
		return fmt.Errorf("claim %q cannot stand in a rule: it is empty, or holds a comma, a quote, = or a space", r.Claim)
	case len(r.Values) == 0:
		return fmt.Errorf("claim %s: no value is named", r.Claim)
	}
	for i, value := range r.Values {
		switch {
		case odd(value):
			return fmt.Errorf("claim %s: value %q is empty, or holds a comma, a quote, = or a space (an unset {$VARIABLE} leaves nothing)", r.Claim, value)
		case slices.Contains(r.Values[:i], value):
			return fmt.Errorf("claim %s: value %s stands here twice", r.Claim, value)
		}
	}
	return nil
}

// String returns the requirement as it is written.
func (r UserRequirement) String() string { return r.Claim + "=" + strings.Join(r.Values, ",") }

// Alternatives returns one requirement of one value for each value.
func (r UserRequirement) Alternatives() ScopeSet {
	names := make([]string, len(r.Values))
	for i, value := range r.Values {
		names[i] = r.Claim + "=" + value
	}
	return NewScopeSet(names...)
}

// MetBy reports whether a user with these claims meets the requirement. Case
// counts. A user of whom nothing is known meets none.
func (r *UserRequirement) MetBy(claims UserClaims) bool {
	for _, held := range claims[r.Claim] {
		if slices.Contains(r.Values, held) {
			return true
		}
	}
	return false
}

// CheckUserRequirements checks each, and refuses two about one claim: whoever
// writes roles=a roles=b may mean either.
func CheckUserRequirements(list []UserRequirement) error {
	for i, r := range list {
		if err := r.Check(); err != nil {
			return err
		}
		if slices.ContainsFunc(list[:i], func(other UserRequirement) bool { return other.Claim == r.Claim }) {
			return errors.New("claim " + r.Claim + " stands here twice; for one of several values write " + r.Claim + "=a,b")
		}
	}
	return nil
}

// UserMeets reports whether a user with these claims meets all requirements.
func UserMeets(list []UserRequirement, claims UserClaims) bool {
	for i := range list {
		if !list[i].MetBy(claims) {
			return false
		}
	}
	return true
}
