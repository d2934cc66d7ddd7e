package oauth_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// USR-01: one spelling, one meaning; what could be read in two ways is refused.
func TestRequirementOnTheUserHasOneReading(t *testing.T) {
	for _, text := range []string{"roles=recruiter", "roles=recruiter,admin", "realm_access.roles=a", "https://example.com/org=acme:1"} {
		r, err := oauth.ParseUserRequirement(text)
		if err != nil || r.String() != text {
			t.Errorf("%s: %v %v", text, r, err)
		}
	}
	for _, text := range []string{"roles", "=a", "roles=", "roles=a,", "roles=,a", "roles=a,a", "roles=a=b", "roles==a", "ro les=a", "roles=a b", `roles="a"`, "ro,les=a", "roles=a\n"} {
		if r, err := oauth.ParseUserRequirement(text); err == nil {
			t.Errorf("%q was read as %v", text, r)
		}
	}
	twice := []oauth.UserRequirement{{Claim: "roles", Values: []string{"a"}}, {Claim: "roles", Values: []string{"b"}}}
	if err := oauth.CheckUserRequirements(twice); err == nil || !strings.Contains(err.Error(), "roles=a,b") {
		t.Errorf("one claim twice: %v", err)
	}
	// No scope can be taken for one.
	if _, err := oauth.NewCatalog([]oauth.Scope{{Name: "roles=recruiter", Description: "x"}}); err == nil {
		t.Error("a scope is spelled like a requirement on the user")
	}
}

func TestUserMeetsWhatOneOfItsValuesMeets(t *testing.T) {
	claims, err := oauth.ReadUserClaims([]byte(`{"roles": ["recruiter", "Admin"], "org": "acme", "level": 3, "staff": true, "none": null, "odd": {"a": 1}, "mixed": [1], "empty": []}`))
	if err != nil {
		t.Fatal(err)
	}
	want := oauth.UserClaims{"roles": {"recruiter", "Admin"}, "org": {"acme"}, "level": {"3"}, "staff": {"true"}, "empty": {}}
	if !reflect.DeepEqual(claims, want) {
		t.Fatalf("%v", claims)
	}
	for text, met := range map[string]bool{
		"roles=recruiter": true, "roles=x,Admin": true, "roles=admin": false, "roles=recruit": false, "org=acme": true, "level=3": true, "staff=true": true,
		"none=null": false, "odd=a": false, "mixed=1": false, "empty=x": false, "missing=x": false,
	} {
		r, err := oauth.ParseUserRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		if r.MetBy(claims) != met || r.MetBy(nil) {
			t.Errorf("%s: %v, and of nobody %v", text, r.MetBy(claims), r.MetBy(nil))
		}
	}
	for _, broken := range []string{`[]`, `"x"`, `{`, ``} {
		if claims, err := oauth.ReadUserClaims([]byte(broken)); err == nil {
			t.Errorf("%q was read as %v", broken, claims)
		}
	}
}
