package caddymodule

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// routeBounds is what the routes of a server tell requests apart by.
type routeBounds struct {
	hosts    []string
	methods  [][]string
	paths    []string // patterns of scope rules, which stand for Caddy's
	cased    []string // pairs: another spelling of a path, and the path
	prefixes []string // that are stripped on the way to a gate
	// unknown are matchers and rewrites that tell requests apart in other ways.
	unknown []string

	invoked []string
}

// boundsOf reads the routes of a provisioned server.
func boundsOf(server *caddyhttp.Server) *routeBounds {
	b := new(routeBounds)
	b.routes(server.Routes, server.NamedRoutes)
	return b
}

func (b *routeBounds) routes(list caddyhttp.RouteList, named map[string]*caddyhttp.Route) {
	for i := range list {
		route := &list[i]
		for _, set := range route.MatcherSets {
			b.matchers(set)
		}
		for _, handler := range route.Handlers {
			switch handler := handler.(type) {
			case *caddyhttp.Subroute:
				b.routes(handler.Routes, named)
			case *caddyhttp.Invoke:
				if route := named[handler.Name]; route != nil && !slices.Contains(b.invoked, handler.Name) {
					b.invoked = append(b.invoked, handler.Name)
					b.routes(caddyhttp.RouteList{*route}, named)
				}
			case *rewrite.Rewrite:
				b.rewrite(handler)
			case *Protect:
				for _, set := range handler.bypass {
					b.matchers(set)
				}
			}
		}
	}
}

func (b *routeBounds) matchers(set caddyhttp.MatcherSet) {
	for _, matcher := range set {
		switch matcher := matcher.(type) {
		case caddyhttp.MatchHost: // of a redirect to https that Caddy adds
			b.hosts = append(b.hosts, matcher...)
		case *caddyhttp.MatchHost:
			b.hosts = append(b.hosts, *matcher...)
		case caddyhttp.MatchProtocol, *caddyhttp.MatchProtocol: // a server has one
		case *caddyhttp.MatchMethod:
			b.methods = append(b.methods, *matcher)
		case *caddyhttp.MatchPath:
			for _, p := range *matcher {
				b.path(p)
			}
		case *caddyhttp.MatchNot:
			for _, inner := range matcher.MatcherSets {
				b.matchers(inner)
			}
		default:
			name := fmt.Sprintf("%T", matcher)
			if module, ok := matcher.(caddy.Module); ok {
				name = module.CaddyModule().ID.Name()
			}
			b.note("requests that the matcher " + name + " tells apart are not told apart here")
		}
	}
}

// path adds what Caddy's path matcher tells apart: an exact path, or all that
// begin alike, without regard to case.
func (b *routeBounds) path(p string) {
	prefix, open := strings.CutSuffix(p, "*")
	if p == "*" || p == "/*" {
		return
	}
	if !strings.HasPrefix(p, "/") || strings.ContainsAny(prefix, "*?[{%\\") || path.Clean(prefix) != strings.TrimSuffix(prefix, "/") && prefix != "/" {
		b.note("requests that the path matcher " + p + " tells apart are not told apart here")
		return
	}
	for _, spelled := range []string{prefix, strings.ToLower(prefix), strings.ToUpper(prefix)} {
		bare := strings.TrimSuffix(spelled, "/")
		if spelled != prefix {
			b.cased = append(b.cased, bare, strings.TrimSuffix(prefix, "/"))
		}
		b.paths = append(b.paths, bare, bare+"/", bare+"/*")
		if open && bare == spelled { // "/a*" is also "/ab"
			b.paths = append(b.paths, bare+"~", bare+"~/*")
		}
	}
}

func (b *routeBounds) rewrite(r *rewrite.Rewrite) {
	switch {
	case !changesTarget(r):
	case r.StripPathPrefix != "" && r.Method == "" && r.URI == "" && r.StripPathSuffix == "" && len(r.URISubstring) == 0 && len(r.PathRegexp) == 0 && !strings.ContainsAny(r.StripPathPrefix, "{%*"):
		b.prefixes = append(b.prefixes, strings.TrimSuffix(r.StripPathPrefix, "/"))
	default:
		b.note("a rewrite changes method or path: what it makes of them is not told apart here")
	}
}

func (b *routeBounds) note(text string) {
	if !slices.Contains(b.unknown, text) {
		b.unknown = append(b.unknown, text)
	}
}
