package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"holdfast.test/kube/internal/config"
	"holdfast.test/kube/internal/paths"
	"holdfast.test/kube/internal/token"
)

const tokenUsage = "k3s token create [--ttl DURATION] [--description TEXT] | list | delete ID... | generate"

// tokens are bootstrap tokens: they let agents in, for a while, and nothing more.
func tokens(args []string) error {
	if len(args) == 0 {
		return errors.New(tokenUsage)
	}
	options, words, err := tokenFlags(args[1:])
	if err != nil {
		return err
	}
	if args[0] == "generate" {
		id, secret, err := token.NewBootstrap()
		if err == nil {
			fmt.Println(id + "." + secret)
		}
		return err
	}
	d, client, err := localCluster(options["data-dir"])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	switch args[0] {
	case "create":
		return createToken(ctx, d, client, options)
	case "list":
		return listTokens(ctx, client)
	case "delete":
		for _, w := range words {
			id, _, _ := strings.Cut(w, ".")
			if err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, "bootstrap-token-"+id, metav1.DeleteOptions{}); err != nil {
				return err
			}
			fmt.Println("deleted", id)
		}
		return nil
	}
	return errors.New(tokenUsage)
}

func tokenFlags(args []string) (map[string]string, []string, error) {
	options, words := map[string]string{"ttl": "24h"}, []string{}
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") {
			words = append(words, args[i])
			continue
		}
		switch name {
		case "d":
			name = "data-dir"
		case "ttl", "description", "data-dir":
		default:
			return nil, nil, fmt.Errorf("unknown flag %s; %s", args[i], tokenUsage)
		}
		if !given {
			if i++; i == len(args) {
				return nil, nil, fmt.Errorf("flag --%s wants a value", name)
			}
			value = args[i]
		}
		options[name] = value
	}
	return options, words, nil
}

// localCluster connects to the server on this machine as its supervisor.
func localCluster(dataDir string) (paths.Dirs, kubernetes.Interface, error) {
	if dataDir == "" {
		c, err := config.LoadFromSystem(false, nil)
		if err != nil {
			return paths.Dirs{}, nil, err
		}
		dataDir = c.DataDir
	}
	d := paths.Dirs{Data: dataDir}
	rest, err := clientcmd.BuildConfigFromFlags("", d.Server("cred", "supervisor.kubeconfig"))
	if err != nil {
		return d, nil, fmt.Errorf("no server runs on this machine: %w", err)
	}
	client, err := kubernetes.NewForConfig(rest)
	return d, client, err
}

func createToken(ctx context.Context, d paths.Dirs, client kubernetes.Interface, options map[string]string) error {
	ttl, err := time.ParseDuration(options["ttl"])
	if err != nil || ttl < 0 {
		return fmt.Errorf("--ttl %q is not a duration such as 1h; 0 means for ever", options["ttl"])
	}
	ca, err := os.ReadFile(d.TLS("server-ca.crt"))
	if err != nil {
		return err
	}
	id, secret, err := token.NewBootstrap()
	if err != nil {
		return err
	}
	data := map[string]string{
		"token-id": id, "token-secret": secret, "description": options["description"],
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
	}
	if ttl > 0 {
		data["expiration"] = time.Now().Add(ttl).UTC().Format(time.RFC3339)
	}
	_, err = client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: data,
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	fmt.Println(token.Token{CAHash: token.CAHash(ca), BootstrapID: id, BootstrapSecret: secret})
	return nil
}

func listTokens(ctx context.Context, client kubernetes.Interface) error {
	list, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TOKEN ID\tEXPIRES\tDESCRIPTION")
	for _, s := range list.Items {
		expires := string(s.Data["expiration"])
		if expires == "" {
			expires = "never"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Data["token-id"], expires, s.Data["description"])
	}
	return w.Flush()
}
