package login

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// Claims says which claims of a user matter here. A name with dots leads into
// objects: "realm_access.roles".
type Claims struct {
	// User becomes the user id. Empty: "sub". An address counts only with
	// email_verified.
	User string
	// Name is what pages call the user. Empty: "email", else
	// "preferred_username", else "name".
	Name string
	// Keep are kept for the upstream.
	Keep []string
	// Require are claims that must have, or among their list hold, one of the
	// values.
	Require map[string][]string
}

// maxClaims bounds what is kept, as JSON.
const maxClaims = 8 << 10

// maxProfileText bounds one claim of a profile, in bytes; a longer one is left
// out.
const maxProfileText = 2048

// missing lists the claims that are wanted and not there.
func (c *Claims) missing(claims map[string]any) (names []string) {
	wanted := append([]string{c.User, c.Name, "name", "email"}, c.Keep...)
	for name := range c.Require {
		wanted = append(wanted, name)
	}
	for _, name := range wanted {
		if _, ok := claim(claims, name); name != "" && !ok {
			names = append(names, name)
		}
	}
	return names
}

// UserOf makes a user of claims that are proven. The error says what is wrong
// with them and holds no value.
func (c *Claims) UserOf(authority string, claims map[string]any) (issuer.ExternalUser, error) {
	u := issuer.ExternalUser{Authority: authority, Claims: map[string]any{}}
	u.Subject, _ = claims["sub"].(string)
	if u.Subject == "" {
		return u, errors.New("the claim sub is missing")
	}
	name := c.User
	if name == "" {
		name = "sub"
	}
	value, _ := claim(claims, name)
	if u.UserID = text(value); u.UserID == "" {
		return u, fmt.Errorf("the claim %s, which becomes the user id, is missing or no text", name)
	}
	if name == "email" && !emailVerified(claims) {
		// Whoever can enter any address at the provider would be anyone here.
		return u, errors.New("the claim email becomes the user id, but email_verified is not true")
	}
	for name, values := range c.Require {
		if value, _ := claim(claims, name); !holdsOne(value, values) {
			return u, fmt.Errorf("the claim %s has none of the required values", name)
		}
	}
	for _, name := range c.Keep {
		if value, ok := claim(claims, name); ok {
			if !plain(value) {
				return u, fmt.Errorf("the claim %s is neither a text, number or boolean nor a list of texts", name)
			}
			u.Claims[name] = value
		}
	}
	if kept, err := json.Marshal(u.Claims); err != nil || len(kept) > maxClaims {
		return u, fmt.Errorf("the claims to keep are larger than %d bytes", maxClaims)
	}
	names := []string{c.Name}
	if c.Name == "" {
		names = []string{"email", "preferred_username", "name"}
	}
	for _, name := range names {
		if value, _ := claim(claims, name); u.Name == "" {
			u.Name = text(value)
		}
	}
	u.Profile = profile(claims)
	u.SessionID, _ = claims["sid"].(string)
	if seconds, ok := claims["auth_time"].(json.Number); ok {
		if at, err := seconds.Int64(); err == nil && at > 0 {
			u.AuthTime = time.Unix(at, 0)
		}
	}
	return u, nil
}

// profile picks what clients may be told of the user. That an address is
// verified is the provider's word about the address beside it.
func profile(claims map[string]any) map[string]any {
	picked := make(map[string]any)
	for _, name := range issuer.ProfileClaims() {
		if value, ok := claims[name].(string); ok && value != "" && len(value) <= maxProfileText && !strings.ContainsRune(value, 0) {
			picked[name] = value
		}
	}
	delete(picked, "email_verified")
	if picked["email"] != nil {
		picked["email_verified"] = emailVerified(claims)
	}
	return picked
}

// emailVerified reads the claim as providers write it.
func emailVerified(claims map[string]any) bool {
	return claims["email_verified"] == true || claims["email_verified"] == "true"
}

// claim finds a claim by its name, or by the path that its dots mean.
func claim(claims map[string]any, name string) (any, bool) {
	if value, ok := claims[name]; ok {
		return value, value != nil
	}
	head, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil, false
	}
	inner, ok := claims[head].(map[string]any)
	if !ok {
		return nil, false
	}
	return claim(inner, rest)
}

// text returns a text or number as text.
func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

func plain(value any) bool {
	switch v := value.(type) {
	case string, json.Number, bool:
		return true
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { _, isText := item.(string); return !isText })
	}
	return false
}

func holdsOne(value any, wanted []string) bool {
	switch v := value.(type) {
	case bool:
		return slices.Contains(wanted, fmt.Sprint(v))
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return holdsOne(item, wanted) })
	}
	return value != nil && slices.Contains(wanted, text(value))
}

// readClaims reads a JSON object, numbers as they are written.
func readClaims(data []byte) (claims map[string]any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&claims); err != nil || claims == nil {
		return nil, errors.New("the claims are no JSON object")
	}
	return claims, nil
}
