package openapi

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// SchemeName is what the security scheme of a published document is called.
const SchemeName = "oauth"

// Publication is what a document says of an authorization server and of the API
// that it protects.
type Publication struct {
	Title   string // of a new document
	Origin  string // of the API, such as https://api.example.com
	Prefix  string // of its paths; see Document.Operations
	Catalog *oauth.Catalog

	AuthorizationURL string
	TokenURL         string

	// FullText keeps descriptions that are longer than custom GPTs take.
	FullText bool

	notes []string
	ids   map[string]bool
	used  oauth.ScopeSet

	limited string // name of the response to those who come too often
}

// Publish completes the document: its server, one security scheme with flow and
// scopes, what each operation requires, the answer 429 where a rate is kept,
// operationIds, and descriptions of a length that custom GPTs take. An operation for which required says false is left out.
// It returns what people should know about that.
func (p Publication) Publish(d *Document, required func(*Operation) (Requirement, bool)) ([]string, error) {
	operations, err := d.Operations(p.Prefix)
	if err != nil {
		return nil, err
	}
	p.ids = make(map[string]bool)
	kept := make(map[string]Requirement) // by method and template
	prefix, known := "", false
	for _, o := range operations {
		requirement, ok := Requirement{}, false
		if o.Problem == nil {
			requirement, ok = required(o)
		}
		if !ok {
			p.note("left out, because no rule lets anybody call it: %s at %s", o, o.Source)
			continue
		}
		own := strings.TrimSuffix(o.Path, pathPattern(o.Template))
		if known && own != prefix {
			return nil, d.fail(o, nil, "its server has another path (%s) than that of others (%s): say with --prefix what stands before all paths", own, prefix)
		}
		prefix, known = own, true
		kept[o.Method+" "+o.Template] = requirement
		p.used = p.used.Union(requirement.Scopes)
	}
	if err := p.publishPaths(d, kept); err != nil {
		return nil, err
	}
	return p.notes, p.publishHead(d, prefix)
}

// pathPattern is the template as the pattern of a rule.
func pathPattern(template string) string {
	segments := strings.Split(template[1:], "/")
	for i, segment := range segments {
		segments[i], _ = segmentPattern(segment)
	}
	return "/" + strings.Join(segments, "/")
}

func (p *Publication) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// publishHead writes server, scheme and scopes.
func (p *Publication) publishHead(d *Document, prefix string) error {
	setMember(d.root, "servers", listNode(mappingNode("url", p.Origin+prefix)))
	removeMember(d.root, "security") // each operation says it
	components, err := d.member(d.root, "components")
	if err != nil {
		return err
	}
	if components == nil {
		components = mappingNode()
		setMember(d.root, "components", components)
	}
	scopes := mappingNode()
	for _, scope := range p.Catalog.Scopes() {
		if p.used.Contains(scope.Name) {
			setMember(scopes, scope.Name, stringNode(scope.Description))
		}
	}
	setMember(components, "securitySchemes", mappingNode(SchemeName, mappingNode(
		"type", "oauth2",
		"flows", mappingNode("authorizationCode", mappingNode(
			"authorizationUrl", p.AuthorizationURL, "tokenUrl", p.TokenURL, "refreshUrl", p.TokenURL, "scopes", scopes,
		)),
	)))
	return nil
}

func (p *Publication) publishPaths(d *Document, kept map[string]Requirement) error {
	paths, err := d.member(d.root, "paths")
	if err != nil || paths == nil {
		return err
	}
	pairs, err := d.pairs(paths)
	if err != nil {
		return err
	}
	published := mappingNode()
	for _, pair := range pairs {
		if strings.HasPrefix(pair.key.Value, "x-") {
			published.Content = append(published.Content, pair.key, pair.value)
			continue
		}
		item, err := d.follow(pair.value)
		if err != nil {
			return err
		}
		if item, err = d.own(item); err != nil {
			return err
		}
		some := false
		for _, method := range methods {
			requirement, ok := kept[strings.ToUpper(method)+" "+pair.key.Value]
			if !ok {
				removeMember(item, method)
				continue
			}
			some = true
			operation, err := d.member(item, method)
			if err != nil {
				return err
			}
			if err := p.publishOperation(d, operation, method, pair.key.Value, requirement); err != nil {
				return err
			}
		}
		removeMember(item, "servers")
		p.shorten(d, item, "parameters of "+pair.key.Value)
		if some {
			published.Content = append(published.Content, pair.key, item)
		}
	}
	setMember(d.root, "paths", published)
	return nil
}

func (p *Publication) publishOperation(d *Document, operation *yaml.Node, method, path string, requirement Requirement) error {
	setMember(operation, "security", requirement.node())
	removeMember(operation, "servers")
	name := strings.ToUpper(method) + " " + path
	old, _ := d.member(operation, "operationId")
	id := p.operationID(text(old), method, path)
	if text(old) != "" && id != text(old) {
		p.note("operationId %q of %s is now %q: GPTs take letters, digits, _ and -, at most %d, each once", text(old), name, id, maxOperationID)
	}
	setMember(operation, "operationId", stringNode(id))
	for _, member := range []string{"summary", "description"} {
		p.shortenText(d, operation, member, maxDescription, member+" of "+name)
	}
	p.shorten(d, operation, "parameters of "+name)
	if requirement.Limited {
		return p.publishLimit(d, operation)
	}
	return nil
}

// node writes the requirement. OpenAPI 3.1.1 section 4.8.30.
func (r Requirement) node() *yaml.Node {
	named := func(scopes ...string) *yaml.Node {
		list := listNode()
		for _, scope := range scopes {
			list.Content = append(list.Content, stringNode(scope))
		}
		list.Style = yaml.FlowStyle
		return mappingNode(SchemeName, list)
	}
	switch r.Access {
	case AccessPublic:
		list := listNode()
		list.Style = yaml.FlowStyle
		return list
	case AccessAny:
		list := listNode()
		for _, scope := range r.Scopes {
			list.Content = append(list.Content, named(scope))
		}
		return list
	}
	return listNode(named(r.Scopes...))
}

// What custom GPTs take, in characters.
const (
	maxDescription          = 300 // of an operation, and its summary
	maxParameterDescription = 700
	maxOperationID          = 64 // the bound of function names
)

// operationID returns an id that custom GPTs take, as near to the given one as
// can be.
func (p *Publication) operationID(id, method, path string) string {
	if id == "" {
		id = method + strings.ReplaceAll(path, "{", "by_")
	}
	id = strings.Map(func(c rune) rune {
		if c < unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c) || c == '_' || c == '-') {
			return c
		}
		if c == '}' {
			return -1
		}
		return '_'
	}, id)
	if id = strings.Trim(id, "_"); len(id) > maxOperationID {
		id = id[:maxOperationID]
	}
	unique := id
	for n := 2; p.ids[unique]; n++ {
		suffix := fmt.Sprintf("_%d", n)
		unique = id[:min(len(id), maxOperationID-len(suffix))] + suffix
	}
	p.ids[unique] = true
	return unique
}

// shorten cuts the descriptions of the parameters of a path item or operation.
func (p *Publication) shorten(d *Document, n *yaml.Node, name string) {
	parameters, _ := d.member(n, "parameters")
	if parameters == nil || parameters.Kind != yaml.SequenceNode {
		return
	}
	for i, parameter := range parameters.Content {
		members, err := d.members(parameter)
		if err != nil || members["$ref"] != nil && len(text(members["description"])) == 0 {
			inlined, err := d.follow(parameter)
			if err == nil && p.isLong(d, inlined) {
				if inlined, err = d.copy(inlined); err == nil {
					parameters.Content[i] = inlined
				}
			}
		}
		p.shortenText(d, unalias(parameters.Content[i]), "description", maxParameterDescription, "a description in the "+name)
	}
}

func (p *Publication) isLong(d *Document, parameter *yaml.Node) bool {
	description, _ := d.member(parameter, "description")
	return !p.FullText && len([]rune(text(description))) > maxParameterDescription
}

func (p *Publication) shortenText(d *Document, n *yaml.Node, member string, limit int, name string) {
	if n == nil || n.Kind != yaml.MappingNode || p.FullText {
		return
	}
	description, err := d.member(n, member)
	if err != nil || description == nil {
		return
	}
	if short := shortened(text(description), limit); short != text(description) {
		setMember(n, member, stringNode(short))
		p.note("shortened to %d characters: %s", limit, name)
	}
}

// shortened cuts at the end of a sentence or else of a word.
func shortened(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	cut := string(runes[:limit-1])
	if i := strings.LastIndexAny(cut, ".!?\n"); i > len(cut)/2 {
		return strings.TrimSpace(cut[:i+1])
	}
	if i := strings.LastIndexByte(cut, ' '); i > 0 {
		cut = cut[:i]
	}
	return strings.TrimSpace(cut) + "…"
}

// NewOperation is an operation of a document that is made of rules.
type NewOperation struct {
	Method string
	Path   string // template
}

// New returns a document with these operations, which Publish completes: all
// that rules tell of them. describe says what an operation is for; empty:
// nothing is known.
func New(title string, operations []NewOperation, describe func(NewOperation) string) *Document {
	paths := mappingNode()
	items := make(map[string]*yaml.Node)
	for _, o := range operations {
		item := items[o.Path]
		if item == nil {
			item = mappingNode()
			if parameters := pathParameters(o.Path); len(parameters.Content) > 0 {
				setMember(item, "parameters", parameters)
			}
			items[o.Path] = item
			setMember(paths, o.Path, item)
		}
		operation := mappingNode("summary", o.Method+" "+o.Path)
		if description := describe(o); description != "" {
			setMember(operation, "description", stringNode(description))
		}
		anything := func() *yaml.Node {
			return mappingNode("application/json", mappingNode("schema", mappingNode("type", "object", "properties", mappingNode(), "additionalProperties", trueNode())))
		}
		if slices.Contains([]string{"POST", "PUT", "PATCH"}, o.Method) {
			setMember(operation, "requestBody", mappingNode("content", anything()))
		}
		setMember(operation, "responses", mappingNode("200", mappingNode("description", "OK", "content", anything())))
		setMember(item, strings.ToLower(o.Method), operation)
	}
	return &Document{name: "document", root: mappingNode("openapi", "3.1.0", "info", mappingNode("title", title, "version", "1"), "paths", paths)}
}

func trueNode() *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"} }

func pathParameters(path string) *yaml.Node {
	list := listNode()
	for _, segment := range strings.Split(path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			list.Content = append(list.Content, mappingNode("name", strings.TrimSuffix(name, "}"), "in", "path", "required", trueNode(), "schema", mappingNode("type", "string")))
		}
	}
	return list
}
