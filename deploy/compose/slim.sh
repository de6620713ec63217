#!/bin/sh
# Takes from a virtual environment what never runs in a container.
set -eu
environment=$1

# Symbols, which only a debugger reads.
find "$environment" -type f -name '*.so*' -exec strip --strip-unneeded {} +

# Of Amazon's services the descriptions of those that are asked, here or by the way of getting credentials.
asked=' cognito-idp dynamodb ec2 iam organizations s3 service-quotas ses sqs ssm sso sso-oidc sts '
for folder in "$environment"/lib/python3*/site-packages/botocore/data/*/; do
    [ -d "$folder" ] || continue
    case $asked in
        *" $(basename "$folder") "*) ;;
        *) rm -r "$folder" ;;
    esac
done
