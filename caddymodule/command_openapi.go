package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/openapi"
	"github.com/caddy-scope/caddy-scope/validator"
)

func openAPICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "openapi", Short: "Writes an OpenAPI document with the security that the gate enforces", Args: cobra.NoArgs,
		Long: `
Writes an OpenAPI document that says what the gate enforces: server, an OAuth 2
scheme with the addresses of this authorization server, the scopes with their
descriptions, what each operation requires, and the answer 429 where callers
have a rate. It is ready for the Actions of a
custom GPT: every operation has an operationId, and descriptions have the length
that GPTs take (operations 300 characters, parameters 700).

With --openapi the document is completed; an operation that no rule lets anybody
call is left out. Without it a document is made of the rules. What was changed
stands on standard error.

Exit status: 0 written, 1 not.`,
		Example: "  caddy oauth openapi --openapi api.yaml --output actions.yaml\n  caddy oauth openapi --format json > rules.json",
		RunE:    writeOpenAPI,
	}
	flags := cmd.Flags()
	flags.String("openapi", "", "OpenAPI document to complete")
	flags.String("prefix", "", "Stands before the paths of the document (default: the path of its servers)")
	flags.String("resource", "", "Resource whose rules are written (default: the issuer's, or the only one)")
	flags.String("format", "", "yaml or json (default: that of the document, else yaml)")
	flags.StringP("output", "o", "", "File to write (default: standard output)")
	flags.Bool("full-text", false, "Keep descriptions that are longer than custom GPTs take")
	return cmd
}

func writeOpenAPI(cmd *cobra.Command, _ []string) error {
	cmd.SilenceUsage = true
	flags := cmd.Flags()
	format, _ := flags.GetString("format")
	if format != "" && format != "yaml" && format != "json" {
		return fmt.Errorf("--format: %q is neither yaml nor json", format)
	}
	config, err := commandConfigJSON(cmd)
	if err != nil {
		return err
	}
	h, err := newRehearsal(config)
	if err != nil {
		return err
	}
	identifier, _ := flags.GetString("resource")
	resource, err := h.app.resourceToPublish(identifier)
	if err != nil {
		return err
	}
	p := openapi.Publication{
		Origin: oauth.Origin(resource.Identifier()), Catalog: h.app.catalog,
		AuthorizationURL: h.app.issuer + "/oauth/authorize", TokenURL: h.app.issuer + "/oauth/token",
	}
	p.Prefix, _ = flags.GetString("prefix")
	p.FullText, _ = flags.GetBool("full-text")
	var document *openapi.Document
	var notes []string
	if file, _ := flags.GetString("openapi"); file != "" {
		if document, err = h.app.document("--openapi", file); err != nil {
			return err
		}
	} else {
		document, notes = documentOf(resource, h.app.catalog)
		p.Prefix = "/"
	}
	operations, err := document.Operations(p.Prefix)
	if err != nil {
		return fmt.Errorf("--openapi: %w", err)
	}
	published, err := p.Publish(document, requirementsIn(resource, operations))
	if err != nil {
		return fmt.Errorf("--openapi: %w", err)
	}
	if notes = append(notes, published...); oauth.Origin(h.app.issuer) != p.Origin {
		notes = append(notes, "the issuer "+h.app.issuer+" is of another origin than the API: custom GPTs take only one domain for both")
	}
	for _, note := range notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
	}
	return writeDocument(cmd, document, format == "json" || format == "" && document.IsJSON())
}

func writeDocument(cmd *cobra.Command, document *openapi.Document, asJSON bool) error {
	var text bytes.Buffer
	write := document.WriteYAML
	if asJSON {
		write = document.WriteJSON
	}
	if err := write(&text); err != nil {
		return err
	}
	file, _ := cmd.Flags().GetString("output")
	if file == "" {
		_, err := text.WriteTo(cmd.OutOrStdout())
		return err
	}
	if err := replaceFile(file, text.Bytes()); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// replaceFile writes a file at once, so that nobody reads half of it.
func replaceFile(file string, content []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // gone when it was renamed
	_, err = temporary.Write(content)
	if err := errors.Join(err, temporary.Chmod(0o644), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), file)
}

// resourceToPublish returns the table of a resource.
func (a *App) resourceToPublish(identifier string) (*validator.Resource, error) {
	var identifiers []string
	var found *validator.Resource
	for _, set := range a.ruleSets() {
		if set.gates[0].Short {
			continue
		}
		own := set.resource.Identifier()
		identifiers = append(identifiers, own)
		if own == identifier || identifier == "" && own == a.issuer {
			found = set.resource
		}
		if identifier == "" && found == nil && len(identifiers) == 1 {
			found = set.resource
		}
	}
	switch {
	case len(identifiers) == 0:
		return nil, errors.New("the configuration has no oauth_protect in block form, so it has no table to write")
	case found == nil:
		return nil, fmt.Errorf("--resource: no gate has the resource %s; there are %s", identifier, strings.Join(identifiers, ", "))
	case identifier == "" && found.Identifier() != a.issuer && len(identifiers) > 1:
		return nil, fmt.Errorf("there are several resources (%s): name one with --resource", strings.Join(identifiers, ", "))
	}
	return found, nil
}

// requirementsIn returns a look-up of what operations require: that of the rule
// for requests whose parameters are no literals of other rules.
func requirementsIn(resource *validator.Resource, operations []*openapi.Operation) func(*openapi.Operation) (openapi.Requirement, bool) {
	rules := resource.Rules()
	all := make([]validator.Rule, len(rules))
	for i, rule := range rules {
		all[i] = *rule
	}
	narrowest := make(map[string]*validator.Rule)
	validator.Compare(operationRules(operations), all, func(i, j int, within bool) {
		name := operations[i].Method + " " + operations[i].Template
		if within && (narrowest[name] == nil || all[j].Within(narrowest[name])) {
			narrowest[name] = &all[j]
		}
	})
	return func(o *openapi.Operation) (openapi.Requirement, bool) {
		rule := narrowest[o.Method+" "+o.Template]
		if rule == nil {
			return openapi.Requirement{}, false
		}
		return openapi.Requirement{Access: string(rule.Access), Scopes: rule.Scopes, Limited: len(rule.Rates) > 0}, true
	}
}

// documentOf makes a document of the rules.
func documentOf(resource *validator.Resource, catalog *oauth.Catalog) (*openapi.Document, []string) {
	var notes []string
	var operations []openapi.NewOperation
	described := make(map[openapi.NewOperation]string)
	for _, rule := range resource.Rules() {
		path, exact := templateOf(rule.Path)
		if path == "" {
			notes = append(notes, "left out, because a document names paths: "+rule.String())
			continue
		}
		if !exact {
			notes = append(notes, path+" stands for all that is below, of which a document can name only one segment: "+rule.String())
		}
		methods := rule.Methods
		if methods == nil {
			methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
			notes = append(notes, "written for "+strings.Join(methods, ", ")+", because the rule is for any method: "+rule.String())
		}
		for _, method := range methods {
			o := openapi.NewOperation{Method: method, Path: path}
			if _, again := described[o]; !again {
				operations = append(operations, o)
				described[o] = describeRule(rule, catalog)
			}
		}
	}
	title := strings.TrimPrefix(oauth.Origin(resource.Identifier()), "https://")
	return openapi.New(title, operations, func(o openapi.NewOperation) string { return described[o] }), notes
}

// templateOf returns the pattern of a rule as a path template; "": it has none.
// exact: it is the same paths.
func templateOf(pattern string) (template string, exact bool) {
	if pattern == validator.Everything {
		return "", false
	}
	segments := strings.Split(pattern, "/")
	exact = true
	for i, segment := range segments {
		switch {
		case segment == "*" && i == len(segments)-1:
			segments[i], exact = "{below}", false
		case segment == "*":
			segments[i] = fmt.Sprintf("{segment%d}", i)
		}
	}
	return strings.Join(segments, "/"), exact
}

// describeRule says what an operation is for, and what it asks of the user, which
// the document's security cannot say.
func describeRule(rule *validator.Rule, catalog *oauth.Catalog) string {
	text := describeScopes(rule.Scopes, catalog)
	if len(rule.User) == 0 {
		return text
	}
	return strings.TrimPrefix(text+". For users with "+strings.Join(userTexts(rule.User), " and "), ". ")
}

// describeScopes says in the words of the scopes what they are for.
func describeScopes(scopes oauth.ScopeSet, catalog *oauth.Catalog) string {
	var texts []string
	for _, name := range scopes {
		if scope, ok := catalog.Lookup(name); ok && !slices.Contains(texts, scope.Description) {
			texts = append(texts, scope.Description)
		}
	}
	return strings.Join(texts, ". ")
}
