package oauth_test

import (
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// A-14, J-25. RFC 6749 section 3.3.
func TestParseScopeRefusesWhatIsNoScopeToken(t *testing.T) {
	t.Parallel()
	for _, param := range []string{
		" a", "a ", "a  b", "a\tb", "a\nb", `a"b`, `a\b`, "a\u00a0b", "é", "\x00", strings.Repeat("a", oauth.MaxScopeParameter+1),
	} {
		if set, err := oauth.ParseScope(param); err == nil {
			t.Errorf("%q is %v", param, set)
		}
	}
	set, err := oauth.ParseScope("b a b")
	if err != nil || set.String() != "a b" {
		t.Errorf("%v %v", set, err)
	}
}

func FuzzParseScope(f *testing.F) {
	for _, seed := range []string{"", "jobs:read", "a b", "a  b", "a\"", "\x7f", " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, param string) {
		set, err := oauth.ParseScope(param)
		if naive := naiveScope(param); (err == nil) != naive {
			t.Fatalf("%q: %v, naive says %v", param, err, naive)
		}
		if err == nil {
			again, err := oauth.ParseScope(set.String())
			if err != nil || !again.Equal(set) {
				t.Fatalf("%q: %v does not read back", param, set)
			}
		}
	})
}

// naiveScope is the grammar of RFC 6749 section 3.3, character by character.
func naiveScope(param string) bool {
	if len(param) > oauth.MaxScopeParameter {
		return false
	}
	previous := byte(' ')
	for i := range len(param) {
		c := param[i]
		token := c == 0x21 || (c >= 0x23 && c <= 0x5b) || (c >= 0x5d && c <= 0x7e)
		if !token && (c != ' ' || previous == ' ') {
			return false
		}
		previous = c
	}
	return param == "" || previous != ' '
}

func TestCatalogClosesTheHierarchy(t *testing.T) {
	t.Parallel()
	scope := func(name string, implies ...string) oauth.Scope {
		return oauth.Scope{Name: name, Description: "words", Implies: implies}
	}
	c, err := oauth.NewCatalog([]oauth.Scope{scope("admin", "write"), scope("write", "read"), scope("read")})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Expand(oauth.NewScopeSet("admin", "gone")).String(); got != "admin read write" {
		t.Errorf("Expand: %q", got)
	}
	for want, scopes := range map[string][]oauth.Scope{
		"declared twice":        {scope("a"), scope("a")},
		"implies itself":        {scope("a", "b"), scope("b", "a")},
		"which is not declared": {scope("a", "b")},
		"reserved":              {scope("public")},
		"OpenID Connect":        {scope("offline_access")},
		"printable ASCII":       {scope("a b")},
		"users read them":       {{Name: "a"}},
	} {
		if _, err := oauth.NewCatalog(scopes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
