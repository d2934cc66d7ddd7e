package openapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Operation is one operation of a document.
type Operation struct {
	Method string // upper case
	// Template is the path as the document has it; Path the same with the prefix
	// of its server, as the pattern of a rule: decoded, {name} for a segment.
	Template string
	Path     string
	ID       string // operationId; empty: it has none
	Source   string // such as "api.yaml:120"
	// Problem says why no rule can name the operation; nil: one can.
	Problem error

	node *yaml.Node
}

func (o *Operation) String() string {
	s := o.Method + " " + o.Template
	if o.ID != "" {
		s += " (" + o.ID + ")"
	}
	return s
}

// fail is an error about the operation, at the node or where it stands.
func (d *Document) fail(o *Operation, at *yaml.Node, format string, args ...any) error {
	source := o.Source
	if at != nil && at.Line != 0 {
		source = d.at(at)
	}
	return &Error{Source: source, Operation: o.String(), Problem: fmt.Sprintf(format, args...)}
}

// methods by their name in a path item, in the order of the specification.
var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// Operations returns every operation in the order of the document. prefix, if
// set, stands before each path in place of what the servers say; "/" is none.
func (d *Document) Operations(prefix string) ([]*Operation, error) {
	top, err := d.members(d.root)
	if err != nil || top["paths"] == nil {
		return nil, err
	}
	paths, err := d.pairs(top["paths"])
	if err != nil {
		return nil, err
	}
	var operations []*Operation
	for _, p := range paths {
		template := p.key.Value
		if strings.HasPrefix(template, "x-") {
			continue
		}
		if !strings.HasPrefix(template, "/") {
			return nil, d.problem(p.key, "path %q does not begin with a slash", template)
		}
		item, err := d.follow(p.value)
		if err != nil {
			return nil, err
		}
		members, err := d.pairs(item)
		if err != nil {
			return nil, err
		}
		inPath := make(map[string]*yaml.Node, len(members))
		lines := make(map[string]*yaml.Node, len(members))
		for _, m := range members {
			inPath[m.key.Value], lines[m.key.Value] = m.value, m.key
		}
		for _, method := range methods {
			if inPath[method] == nil {
				continue
			}
			o := &Operation{Method: strings.ToUpper(method), Template: template, Source: d.at(lines[method]), node: inPath[method]}
			inOperation, err := d.members(o.node)
			if err != nil {
				return nil, err
			}
			o.ID = text(inOperation["operationId"])
			servers := inOperation["servers"]
			if servers == nil {
				servers = inPath["servers"]
			}
			if servers == nil {
				servers = top["servers"]
			}
			o.Path, o.Problem = d.pathOf(o, servers, prefix)
			operations = append(operations, o)
		}
	}
	return operations, nil
}

func (d *Document) pathOf(o *Operation, servers *yaml.Node, prefix string) (string, error) {
	if prefix == "" {
		var err error
		if prefix, err = d.serverPrefix(o, servers); err != nil {
			return "", err
		}
	}
	path := strings.TrimSuffix(prefix, "/")
	for _, segment := range strings.Split(o.Template[1:], "/") {
		pattern, problem := segmentPattern(segment)
		if problem != "" {
			return "", d.fail(o, nil, "segment %q %s", segment, problem)
		}
		path += "/" + pattern
	}
	if o.Method == "TRACE" {
		return "", d.fail(o, nil, "the gate refuses TRACE, whatever a rule says")
	}
	return path, nil
}

// segmentPattern turns one segment of a template into one of a rule.
func segmentPattern(segment string) (pattern, problem string) {
	if name, open := strings.CutPrefix(segment, "{"); open && strings.HasSuffix(name, "}") && !strings.ContainsAny(name[:len(name)-1], "{}") {
		name = strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
				return c
			}
			if c == '.' || c == '~' {
				return '_'
			}
			return -1
		}, strings.TrimSuffix(name, "}"))
		if len(name) != len(segment)-2 || name == "" {
			return "", "is no template such as {id}, which is exactly one segment"
		}
		return "{" + name + "}", ""
	}
	literal, err := url.PathUnescape(segment)
	switch {
	case strings.ContainsAny(segment, "{}"):
		return "", "is a template in part, and a rule's {name} is a whole segment"
	case strings.ContainsAny(segment, "*?#"):
		return "", "has * ? or #, which no path of a rule has"
	case err != nil || strings.ContainsAny(literal, "/%"):
		return "", "has an escape that no path of a rule has"
	}
	return literal, ""
}

// serverPrefix returns the path that all servers have in common.
func (d *Document) serverPrefix(o *Operation, servers *yaml.Node) (string, error) {
	servers = unalias(servers)
	if servers == nil || len(servers.Content) == 0 {
		return "/", nil
	}
	if servers.Kind != yaml.SequenceNode {
		return "", d.fail(o, servers, "servers is no list")
	}
	var prefixes []string
	for _, server := range servers.Content {
		members, err := d.members(server)
		if err != nil {
			return "", err
		}
		prefix, err := d.prefixOf(o, server, text(members["url"]), members["variables"])
		if err != nil {
			return "", err
		}
		if !slices.Contains(prefixes, prefix) {
			prefixes = append(prefixes, prefix)
		}
	}
	if len(prefixes) > 1 {
		return "", d.fail(o, servers, "the servers have different paths (%s): say with prefix which one the gate sees", strings.Join(prefixes, ", "))
	}
	return prefixes[0], nil
}

// prefixOf returns the path of a server's URL.
func (d *Document) prefixOf(o *Operation, at *yaml.Node, address string, variables *yaml.Node) (string, error) {
	path := address
	if _, rest, absolute := strings.Cut(address, "://"); absolute {
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	if path != "" && path[0] != '/' || strings.ContainsAny(path, "?#") {
		return "", d.fail(o, at, "the server %q has no path that can be told: say with prefix which one the gate sees", address)
	}
	path = strings.TrimSuffix(path, "/")
	for {
		before, rest, open := strings.Cut(path, "{")
		name, after, closed := strings.Cut(rest, "}")
		if !open {
			return path + "/", nil
		}
		var variable map[string]*yaml.Node
		if closed && variables != nil {
			all, err := d.members(variables)
			if err != nil {
				return "", err
			}
			if all[name] != nil {
				if variable, err = d.members(all[name]); err != nil {
					return "", err
				}
			}
		}
		choices := variable["enum"]
		if variable == nil || choices != nil && len(choices.Content) > 1 || strings.Contains(text(variable["default"]), "{") {
			return "", d.fail(o, at, "the path of the server %q has a variable with several values: say with prefix which one the gate sees", address)
		}
		path = before + text(variable["default"]) + after
	}
}
