package openapi

import (
	"net/url"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// pair is one member of a mapping.
type pair struct {
	key   *yaml.Node
	value *yaml.Node
}

// pairs returns the members of a mapping in order, with aliases and merge keys
// (<<) resolved. A name that stands twice is an error: readers would disagree.
func (d *Document) pairs(n *yaml.Node) ([]pair, error) { return d.pairsWithin(n, 0) }

func (d *Document) pairsWithin(n *yaml.Node, depth int) ([]pair, error) {
	n = unalias(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, d.problem(n, "a mapping is expected here")
	}
	if depth > maxReferences {
		return nil, d.problem(n, "merges itself")
	}
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	pairs := make([]pair, 0, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], unalias(n.Content[i+1])
		if key.Tag == "!!merge" {
			if value.Kind == yaml.SequenceNode {
				merged = append(merged, value.Content...)
			} else {
				merged = append(merged, value)
			}
			continue
		}
		if first := seen[key.Value]; first != nil {
			return nil, d.problem(key, "%s stands twice, first at line %d", key.Value, first.Line)
		}
		seen[key.Value] = key
		pairs = append(pairs, pair{key, value})
	}
	for _, other := range merged {
		more, err := d.pairsWithin(other, depth+1)
		if err != nil {
			return nil, err
		}
		for _, p := range more {
			if seen[p.key.Value] == nil {
				seen[p.key.Value] = p.key
				pairs = append(pairs, p)
			}
		}
	}
	return pairs, nil
}

// members returns the members of a mapping by name.
func (d *Document) members(n *yaml.Node) (map[string]*yaml.Node, error) {
	pairs, err := d.pairs(n)
	if err != nil {
		return nil, err
	}
	members := make(map[string]*yaml.Node, len(pairs))
	for _, p := range pairs {
		members[p.key.Value] = p.value
	}
	return members, nil
}

// member returns one member of the mapping, nil if there is none.
func (d *Document) member(n *yaml.Node, name string) (*yaml.Node, error) {
	members, err := d.members(n)
	return members[name], err
}

func unalias(n *yaml.Node) *yaml.Node {
	for range maxReferences {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// text returns the value of a string, a number or a word; of anything else "".
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// maxReferences bounds chains of references.
const maxReferences = 32

// follow returns what the node refers to with $ref, or the node itself. Beside
// $ref nothing may stand but words for people.
func (d *Document) follow(n *yaml.Node) (*yaml.Node, error) {
	at := n
	for range maxReferences {
		members, err := d.members(n)
		if err != nil {
			return nil, err
		}
		ref := members["$ref"]
		if ref == nil {
			return n, nil
		}
		for name, value := range members {
			if name != "$ref" && name != "summary" && name != "description" && !strings.HasPrefix(name, "x-") {
				return nil, d.problem(value, "%s stands beside $ref; which of the two counts is not defined", name)
			}
		}
		if n, err = d.lookUp(ref); err != nil {
			return nil, err
		}
	}
	return nil, d.problem(at, "$ref leads in a circle")
}

// lookUp resolves a reference into this document. RFC 6901 section 6.
func (d *Document) lookUp(ref *yaml.Node) (*yaml.Node, error) {
	pointer, local := strings.CutPrefix(text(ref), "#")
	if !local {
		return nil, d.problem(ref, "$ref %q leads out of the document; bundle the documents into one first", text(ref))
	}
	pointer, err := url.PathUnescape(pointer)
	if err != nil || pointer != "" && pointer[0] != '/' {
		return nil, d.problem(ref, "$ref %q is no JSON pointer such as #/components/pathItems/Job", text(ref))
	}
	n := d.root
	if pointer == "" {
		return n, nil
	}
	for _, token := range strings.Split(pointer[1:], "/") {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		n = unalias(n)
		if n != nil && n.Kind == yaml.SequenceNode {
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(n.Content) {
				return nil, d.problem(ref, "$ref %q leads nowhere", text(ref))
			}
			n = unalias(n.Content[i])
			continue
		}
		next, err := d.member(n, token)
		if err != nil {
			return nil, err
		}
		if next == nil {
			return nil, d.problem(ref, "$ref %q leads nowhere", text(ref))
		}
		n = next
	}
	return n, nil
}
