package caddymodule

import (
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// surveyedResource is a resource as all rules of its gates make it.
type surveyedResource struct {
	issuer.ProtectedResource
	routes []issuer.Route
}

// collectResources reads the rules of every gate once, also those of documents
// and tools: metadata, the choice of a resource and the consent page speak of
// them. A gate whose rules are wrong is reported when it is provisioned.
func (a *App) collectResources(survey *routeSurvey) {
	for _, s := range survey.gates {
		identifier, err := a.resourceIdentifier(s.gate)
		if err != nil {
			continue
		}
		rules, err := s.gate.compileRules(a)
		if err != nil {
			continue
		}
		resource := survey.resource(identifier)
		for i := range rules {
			resource.add(&rules[i])
		}
	}
	for _, other := range a.elsewhere {
		resource := survey.resource(other.Identifier)
		resource.Scopes = resource.Scopes.Union(other.Scopes)
	}
}

// resource returns the resource of this identifier; a new one, if need be.
func (s *routeSurvey) resource(identifier string) *surveyedResource {
	for _, resource := range s.resources {
		if resource.Identifier == identifier {
			return resource
		}
	}
	resource := &surveyedResource{ProtectedResource: issuer.ProtectedResource{Identifier: identifier}}
	s.resources = append(s.resources, resource)
	return resource
}

func (r *surveyedResource) add(rule *validator.Rule) {
	r.Scopes = r.Scopes.Union(rule.Scopes)
	r.addRoute(rule, routeName(rule, r.Identifier))
	if rule.Tools != nil {
		for i := range rule.Tools.Rules {
			tool := &rule.Tools.Rules[i]
			r.Scopes = r.Scopes.Union(tool.Scopes)
			r.addRoute(tool, tool.Tool)
		}
	}
}

func (r *surveyedResource) addRoute(rule *validator.Rule, name string) {
	route := issuer.Route{Name: name, Tool: rule.Tool != "", Scopes: rule.Scopes, Any: rule.Access == validator.AccessAny, User: rule.User}
	if len(route.Scopes) > 0 && !slices.ContainsFunc(r.routes, func(other issuer.Route) bool {
		return other.Name == route.Name && other.Tool == route.Tool && other.Any == route.Any && other.Scopes.Equal(route.Scopes) && slices.EqualFunc(other.User, route.User, sameRequirement)
	}) {
		r.routes = append(r.routes, route)
	}
}

func sameRequirement(a, b oauth.UserRequirement) bool { return a.String() == b.String() }

// routeName is what the rule is about, as users see it: the short form's is all
// that its gate stands before.
func routeName(rule *validator.Rule, resource string) string {
	switch {
	case rule.Path == validator.Everything:
		return resource
	case rule.Methods == nil:
		return rule.Path
	}
	return strings.Join(rule.Methods, ",") + " " + rule.Path
}

// protectedResources lists the resources of all gates, each once.
func (a *App) protectedResources() []issuer.ProtectedResource {
	if a.survey == nil {
		return nil
	}
	resources := make([]issuer.ProtectedResource, 0, len(a.survey.resources))
	for _, resource := range a.survey.resources {
		resources = append(resources, resource.ProtectedResource)
	}
	return resources
}

// routesOf tells what the rules of a resource open, for the consent page.
func (a *App) routesOf(identifier string) []issuer.Route {
	if a.survey != nil {
		for _, resource := range a.survey.resources {
			if resource.Identifier == identifier {
				return slices.Clone(resource.routes)
			}
		}
	}
	return nil
}
