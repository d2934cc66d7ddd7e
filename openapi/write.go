package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// IsJSON reports whether the document was read from JSON.
func (d *Document) IsJSON() bool { return d.json }

// WriteYAML writes the document; members keep their order, comments stay.
func (d *Document) WriteYAML(to io.Writer) error {
	encoder := yaml.NewEncoder(to)
	encoder.SetIndent(2)
	if err := encoder.Encode(d.root); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	return encoder.Close()
}

// WriteJSON writes the document; members keep their order.
func (d *Document) WriteJSON(to io.Writer) error {
	var compact, pretty bytes.Buffer
	if err := writeJSON(&compact, d.root, 0); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	if err := json.Indent(&pretty, compact.Bytes(), "", "  "); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	pretty.WriteByte('\n')
	_, err := pretty.WriteTo(to)
	return err
}

func writeJSON(to *bytes.Buffer, n *yaml.Node, depth int) error {
	if n = unalias(n); n == nil || depth > maxDepth || to.Len() > 4*MaxSize {
		return errors.New("aliases lead in a circle, or to more than a document holds")
	}
	switch n.Kind {
	case yaml.MappingNode:
		pairs, err := (&Document{}).pairs(n)
		if err != nil {
			return err
		}
		to.WriteByte('{')
		for i, p := range pairs {
			if i > 0 {
				to.WriteByte(',')
			}
			key, err := json.Marshal(p.key.Value)
			if err != nil {
				return err
			}
			to.Write(key)
			to.WriteByte(':')
			if err := writeJSON(to, p.value, depth+1); err != nil {
				return err
			}
		}
		to.WriteByte('}')
		return nil
	case yaml.SequenceNode:
		to.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				to.WriteByte(',')
			}
			if err := writeJSON(to, item, depth+1); err != nil {
				return err
			}
		}
		to.WriteByte(']')
		return nil
	}
	return writeScalar(to, n)
}

func writeScalar(to *bytes.Buffer, n *yaml.Node) error {
	var value any = n.Value
	switch n.ShortTag() {
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) { // to the digit
			to.WriteString(n.Value)
			return nil
		}
		if err := n.Decode(&value); err != nil {
			return err
		}
	case "!!bool", "!!null":
		if err := n.Decode(&value); err != nil {
			return err
		}
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("line %d: %s: %w", n.Line, n.Value, err)
	}
	to.Write(text)
	return nil
}

// The nodes of what is written.

func stringNode(value string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(value)
	return n
}

func listNode(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: items}
}

// mappingNode takes names and values by turns; a value is a *yaml.Node or a
// string.
func mappingNode(members ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := 0; i+1 < len(members); i += 2 {
		value, isNode := members[i+1].(*yaml.Node)
		if !isNode {
			value = stringNode(members[i+1].(string))
		}
		n.Content = append(n.Content, stringNode(members[i].(string)), value)
	}
	return n
}

// setMember gives the mapping a member, in the place of the one of that name, or
// as its last.
func setMember(n *yaml.Node, name string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, stringNode(name), value)
}

func removeMember(n *yaml.Node, name string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}

// own returns the mapping as one that can be changed: a copy that shares no
// member with another place of the document, merge keys worked out.
func (d *Document) own(n *yaml.Node) (*yaml.Node, error) {
	pairs, err := d.pairs(n)
	if err != nil {
		return nil, err
	}
	copied := *unalias(n)
	copied.Anchor, copied.Content = "", nil
	for _, p := range pairs {
		key := *p.key
		value, err := d.copy(p.value)
		if err != nil {
			return nil, err
		}
		copied.Content = append(copied.Content, &key, value)
	}
	return &copied, nil
}

// maxCopied bounds what is copied of one document, in nodes: aliases within
// aliases would be without end.
const maxCopied = 8 << 20

func (d *Document) copy(n *yaml.Node) (*yaml.Node, error) {
	n = unalias(n)
	if d.copied++; n == nil || d.copied > maxCopied {
		return nil, d.problem(n, "aliases lead in a circle, or to more than a document holds")
	}
	copied := *n
	copied.Anchor, copied.Content = "", make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		var err error
		if copied.Content[i], err = d.copy(child); err != nil {
			return nil, err
		}
	}
	return &copied, nil
}
