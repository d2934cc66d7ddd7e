package openapi

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// limitedName is what the shared response of a gate that keeps rates is called.
const limitedName = "RateLimited"

// publishLimit adds 429, unless the document tells of it: the API may keep a rate
// of its own.
func (p *Publication) publishLimit(d *Document, operation *yaml.Node) error {
	responses, err := d.member(operation, "responses")
	if err != nil {
		return err
	}
	if responses == nil {
		responses = mappingNode()
	}
	if responses, err = d.own(responses); err != nil {
		return err
	}
	if own, err := d.member(responses, "429"); own != nil || err != nil {
		return err
	}
	if p.limited == "" {
		if p.limited, err = d.addLimited(); err != nil {
			return err
		}
	}
	setMember(responses, "429", mappingNode("$ref", "#/components/responses/"+p.limited))
	setMember(operation, "responses", responses)
	return nil
}

// addLimited adds the response and returns its name: another one, where the
// document has something by this name.
func (d *Document) addLimited() (string, error) {
	components, err := d.memberToChange(d.root, "components")
	if err != nil {
		return "", err
	}
	responses, err := d.memberToChange(components, "responses")
	if err != nil {
		return "", err
	}
	taken, err := d.members(responses)
	if err != nil {
		return "", err
	}
	name := limitedName
	for n := 2; taken[name] != nil; n++ {
		name = fmt.Sprintf("%s_%d", limitedName, n)
	}
	setMember(responses, name, limitedNode())
	return name, nil
}

// memberToChange returns a mapping in the document, which is added if there is
// none, and copied if it stands in other places too.
func (d *Document) memberToChange(n *yaml.Node, name string) (*yaml.Node, error) {
	member, err := d.member(n, name)
	if err != nil {
		return nil, err
	}
	if member == nil {
		member = mappingNode()
	}
	if member, err = d.own(member); err != nil {
		return nil, err
	}
	setMember(n, name, member)
	return member, nil
}

// limitedNode is the answer of the gate; its body may be that of handle_errors. RFC 6585 section 4, RFC 9110 section
// 10.2.3, draft-ietf-httpapi-ratelimit-headers-10.
func limitedNode() *yaml.Node {
	field := func(description, kind string) *yaml.Node {
		return mappingNode("description", description, "schema", mappingNode("type", kind))
	}
	return mappingNode(
		"description", "Too many requests. Nothing was done; come again after the seconds of Retry-After.",
		"headers", mappingNode(
			"Retry-After", field("Seconds to wait", "integer"),
			"RateLimit", field("What is left of each quota, and when there is more", "string"),
			"RateLimit-Policy", field("The quotas", "string"),
		),
	)
}
