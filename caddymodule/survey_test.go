package caddymodule

import (
	"context"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func contextWithVars(ctx context.Context, vars map[string]any) context.Context {
	return context.WithValue(ctx, caddyhttp.VarsCtxKey, vars)
}

// TestPathsOverlapInTheGrammarOfRules
func TestPathsOverlapInTheGrammarOfRules(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"/jobs", "/jobs", true}, {"/jobs", "/jobs/*", false}, {"/jobs/*", "/jobs/1/2", true}, {"/jobs/{id}", "/jobs/1", true},
		{"/jobs/{id}/x", "/jobs/1/y", false}, {"/a/*", "/b/*", false}, {"*", "/a", true}, {"/a/*/b", "/a/1/b", true}, {"/a/*/b", "/a/1/c", false},
	} {
		if got := pathsOverlap(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %t", c.a, c.b, got)
		}
		if got := pathsOverlap(c.b, c.a); got != c.want {
			t.Errorf("%s and %s: %t", c.b, c.a, got)
		}
	}
}

// TestCaddyPathMatchersAreToldApartOnlyWhenSure
func TestCaddyPathMatchersAreToldApartOnlyWhenSure(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"/a", "/b", false}, {"/a*", "/ab", true}, {"/a/*", "/b/*", false}, {"/A", "/a", true}, {"*.php", "/a", true}, {"/a/*", "/a/b*", true}, {"/%61", "/a", true},
	} {
		if got := mayMatchSamePath(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %t", c.a, c.b, got)
		}
	}
}
