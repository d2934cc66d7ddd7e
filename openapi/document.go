package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize bounds a document, in bytes.
const MaxSize = 64 << 20

// Document is a parsed document.
type Document struct {
	name string // as errors call it
	json bool
	root *yaml.Node

	copied int // nodes
}

// Error is what is wrong with a document, or unclear in it.
type Error struct {
	Source    string // such as "api.yaml:120"
	Operation string // such as "GET /jobs/{id} (getJob)"; empty: not about one
	Problem   string
}

func (e *Error) Error() string {
	if e.Operation == "" {
		return e.Source + ": " + e.Problem
	}
	return e.Source + ": " + e.Operation + ": " + e.Problem
}

// Parse reads a document. name is what errors call it, such as "api.yaml".
func Parse(name string, content []byte) (*Document, error) {
	if len(content) > MaxSize {
		return nil, fmt.Errorf("%s: is larger than %d MiB", name, MaxSize>>20)
	}
	d := &Document{name: name}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if trimmed := bytes.TrimLeft(content, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		root, err := parseJSON(content)
		if err != nil {
			return nil, fmt.Errorf("%s: is no JSON: %w", name, err)
		}
		d.json, d.root = true, root
	} else {
		var top yaml.Node
		if err := yaml.Unmarshal(content, &top); err != nil {
			return nil, fmt.Errorf("%s: is no YAML: %w", name, err)
		}
		if len(top.Content) == 0 {
			return nil, fmt.Errorf("%s: is empty", name)
		}
		d.root = top.Content[0]
	}
	return d, d.checkVersion()
}

func (d *Document) checkVersion() error {
	members, err := d.members(d.root)
	if err != nil {
		return err
	}
	version := text(members["openapi"])
	switch {
	case strings.HasPrefix(version, "3.0.") || strings.HasPrefix(version, "3.1."):
		return nil
	case members["swagger"] != nil:
		return d.problem(members["swagger"], "Swagger %s is not supported: convert the document to OpenAPI 3.1", text(members["swagger"]))
	case version == "":
		return d.problem(d.root, "is no OpenAPI document: the member openapi, with the version, is missing")
	}
	return d.problem(members["openapi"], "OpenAPI %s is not supported; 3.0 and 3.1 are", version)
}

// problem is an error at the node.
func (d *Document) problem(at *yaml.Node, format string, args ...any) error {
	return &Error{Source: d.at(at), Problem: fmt.Sprintf(format, args...)}
}

func (d *Document) at(n *yaml.Node) string {
	if n == nil || n.Line == 0 {
		return d.name
	}
	return fmt.Sprintf("%s:%d", d.name, n.Line)
}

// parseJSON reads JSON into the nodes that YAML has, with their lines. (YAML is
// no superset of JSON to a parser: it refuses tabs, for one.)
func parseJSON(content []byte) (*yaml.Node, error) {
	p := &jsonParser{content: content, decoder: json.NewDecoder(bytes.NewReader(content)), line: 1}
	p.decoder.UseNumber()
	root, err := p.value()
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", p.lineNow(), err)
	}
	if _, err := p.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: something follows the document", p.lineNow())
	}
	return root, nil
}

type jsonParser struct {
	content []byte
	decoder *json.Decoder
	line    int
	counted int64 // bytes whose line breaks are in line
	depth   int
}

const maxDepth = 1000

func (p *jsonParser) lineNow() int {
	offset := p.decoder.InputOffset()
	p.line += bytes.Count(p.content[p.counted:offset], []byte("\n"))
	p.counted = offset
	return p.line
}

func (p *jsonParser) value() (*yaml.Node, error) {
	token, err := p.decoder.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.lineNow()}
	switch token := token.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if token == '{' {
			n.Kind = yaml.MappingNode
		}
		if p.depth++; p.depth > maxDepth {
			return nil, errors.New("nested too deep")
		}
		for p.decoder.More() { // keys are strings, or the decoder had refused them
			child, err := p.value()
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		p.depth--
		_, err = p.decoder.Token()
		return n, err
	case string:
		n.Tag, n.Value = "!!str", token
	case json.Number:
		n.Tag, n.Value = "!!float", token.String()
		if !strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(token)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}
